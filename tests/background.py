"""A plugin of pytest: a suite in the background, and all that it starts, hear signals as in a terminal.

A shell starts a background job with SIGINT and SIGQUIT ignored, `nohup` with SIGHUP, and whatever a process ignores its
children ignore too. What it handles they do not inherit: so the suite lives through a hangup, and its children hear it.
"""

from __future__ import annotations

import signal

import pytest

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def pytest_configure(config: pytest.Config) -> None:
    """In each process that runs tests: one that only shares them out stays as it was started."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else lambda *_: None)
