"""A pytest plugin for tests in the background: signals reach the tests and their children as in a terminal.

A shell starts a background job with SIGINT and SIGQUIT ignored, and `nohup` starts one with SIGHUP ignored. Children
inherit ignored signals, but not handlers. So each process that runs tests handles these signals instead: its children
then get the default, and the tests themselves survive a hangup.
"""

from __future__ import annotations

import signal

import pytest

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def pytest_configure(config: pytest.Config) -> None:
    """Handle the ignored signals, but only in a process that runs tests, not in one that distributes them."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
