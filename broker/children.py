"""The child processes of `ssmprov up`: how one is started, what it says, and when it is started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO

from ssmprov import logs, rooms
from ssmprov.process import EXIT_CONFIGURATION, EXIT_FAULT, READY

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 10.0
GOOD_LIFE_S = 30.0
_CRASHED = "A damaged or unsupported model file can cause this: check it with `ssmprov models check PATH`"
HINTS: dict[int, str] = {
    **dict.fromkeys((-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS, -signal.SIGFPE), _CRASHED),
    EXIT_FAULT: _CRASHED,
    -signal.SIGKILL: "The system does that if it runs out of memory: use a smaller model, fewer workers or fewer slots",
}
"""What may help a child that ends in such a way."""

HOPELESS = 3
"""If a child ends in such a way this often in a row before it ever serves, it is not started again."""

MAX_LINE = 64 * 1024

Say = Callable[[str, str], None]
"""Takes one line that a child has written: who, what."""


def delay_s(failures: int) -> float:
    """How long to wait before the next start of a child that has failed `failures` times in a row."""
    return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(failures - 1, 10)))


def ending(status: int) -> str:
    """An exit status of `subprocess` in words. Signals are negative."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


@dataclass(slots=True, eq=False, kw_only=True)
class Child:
    """One supervised process. `due` is the time of its next start; None while it runs or must not start.

    `why_not` says why it is not started again.
    """

    name: str
    arguments: list[str]  # the module and its arguments
    rank: int  # lower ones start first and stop last
    due: float | None = None
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0
    last_line: str = ""
    served: bool = False
    model: str = ""  # of a worker
    why_not: str = ""
    _rest: bytes = field(default=b"", repr=False)
    _ready: int | None = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def output(self) -> IO[bytes]:
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout

    def start(self, environment: Mapping[str, str], now: float) -> None:
        """Start it in its own session, so that Ctrl-C on a terminal reaches only the supervisor.

        It inherits the write end of a pipe and writes to it once it serves (`ssmprov.process.ready`).
        """
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        try:
            self.process = subprocess.Popen(
                rooms.command(*self.arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**environment, READY: str(write_end)},
                start_new_session=True,
                pass_fds=[write_end],
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._ready = read_end
        os.set_blocking(self.output.fileno(), False)
        self.started, self.due, self.last_line, self._rest = now, None, "", b""

    def relay(self, say: Say) -> bool:
        """Pass on the complete lines that it has written so far. Returns False at the end of its output."""
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
                text = line.decode("utf-8", "replace")
                own = logs.text_of(text)
                self.last_line = text if own is None else own
                say(self.name, text)
            if not data:
                return False

    def _listen(self) -> None:
        """Find out, once it has ended, whether it served."""
        if self._ready is not None:
            with contextlib.suppress(BlockingIOError):  # a process that it started still holds the pipe
                self.served |= bool(os.read(self._ready, 1))
            os.close(self._ready)
            self._ready = None

    def ended(self, now: float) -> int | None:
        """If it has just ended, schedule its next start and return its exit status; otherwise return None."""
        status = self.process.poll() if self.process else None
        if status is None:
            return None
        self._listen()
        self.output.close()
        self.process = None
        if status in HINTS and not self.served and self.failures + 1 >= HOPELESS:
            cause = f" ({self.last_line})" if status == EXIT_FAULT else ""
            self.last_line = f"it {ending(status)}{cause} after each of {HOPELESS} starts. {HINTS[status]}"
            return EXIT_CONFIGURATION
        if status != EXIT_CONFIGURATION:
            lived = self.served and now - self.started >= GOOD_LIFE_S
            self.failures = 1 if lived else self.failures + 1
            self.due = now + delay_s(self.failures)
        return status

    def signal(self, number: int) -> None:
        """Send it a signal. SIGKILL also goes to all processes that it has started."""
        if self.process is None or self.process.poll() is not None:
            return
        if number == signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
