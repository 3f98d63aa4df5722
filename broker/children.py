"""The child processes of `ssmprov up`: how one is started, what it says, and when it is started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from ssmprov import rooms
from ssmprov.process import EXIT_CONFIGURATION

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
GOOD_LIFE_S = 30.0
CRASHES = frozenset({-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS, -signal.SIGFPE})
HOPELESS = 3
"""A child that a native library took down so often in a row, before it ever served, will not serve the next time."""

SERVES = " serves "
MAX_LINE = 64 * 1024

Say = Callable[[str, str], None]
"""Writes one line of the log: who, what."""


def delay_s(failures: int) -> float:
    """How long to wait before a child is started again that has failed so many times in a row."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - 1, 10)))


def ending(status: int) -> str:
    """An exit status in words, as `subprocess` gives it: negative for a signal."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


@dataclass(slots=True, eq=False)
class Child:
    """One supervised process. `due` is the time of its next start, or None while it runs or must not start."""

    name: str
    arguments: list[str]  # the module and its arguments
    rank: int  # lower ones start first and stop last
    due: float | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    last_line: str = ""
    served: bool = False
    _rest: bytes = field(default=b"", repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def output(self) -> IO[bytes]:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout

    def start(self, environment: Mapping[str, str], now: float) -> None:
        """Start it in a session of its own, so that a terminal's Ctrl-C reaches the supervisor alone."""
        self.process = subprocess.Popen(
            rooms.command(*self.arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )
        os.set_blocking(self.output.fileno(), False)
        self.started, self.due, self.last_line, self._rest = now, None, "", b""

    def relay(self, say: Say) -> bool:
        """Pass on the whole lines that it has written by now. False at the end of its output."""
        while True:
            try:
                data = os.read(self.output.fileno(), MAX_LINE)
            except BlockingIOError:
                return True
            *lines, self._rest = (self._rest + data).split(b"\n")
            if self._rest and (not data or len(self._rest) >= MAX_LINE):
                lines.append(self._rest)
                self._rest = b""
            for line in lines:
                self.last_line = line.decode("utf-8", "replace")
                self.served = self.served or SERVES in self.last_line
                say(self.name, self.last_line)
            if not data:
                return False

    def ended(self, now: float) -> int | None:
        """Its exit status when it has just ended, and when to start it again; None while it runs or is not there."""
        status = self.process.poll() if self.process else None
        if status is None:
            return None
        self.output.close()
        self.process = None
        if status in CRASHES and not self.served and self.failures + 1 >= HOPELESS:
            self.last_line = (
                f"it {ending(status)} at each of {HOPELESS} starts, as a library does over a file that is damaged or "
                "not for it: `ssmprov models check PATH` tells more"
            )
            return EXIT_CONFIGURATION
        if status != EXIT_CONFIGURATION:
            self.failures = 1 if now - self.started >= GOOD_LIFE_S else self.failures + 1
            self.due = now + delay_s(self.failures)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to it, or with SIGKILL to whatever it has started too."""
        if self.process is None or self.process.poll() is not None:
            return
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
