"""What a supervised process and its supervisor share: exit codes, liveness, and how processes are identified."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Container, Iterator
from itertools import pairwise
from types import FrameType

from ssmprov.causes import LASTING, known

SUPERVISED = "SSMPROV_SUPERVISED"
"""Environment variable that holds the supervisor's process id."""

EXIT_CONFIGURATION = 78
"""Exit status (sysexits' EX_CONFIG) of a process whose configuration is wrong: restarting it would not help."""

EXIT_FAULT = 70
"""Exit status (EX_SOFTWARE) of a process that a bug of ssmprov has ended."""
Handler = Callable[[int, FrameType | None], object]

READY = "SSMPROV_READY_FD"
"""Environment variable that holds the descriptor through which a child tells its supervisor that it serves."""

_PR_SET_PDEATHSIG = 1


def heard(*numbers: signal.Signals) -> list[signal.Signals]:
    """Those signals that this process was not told to ignore (`nohup`, a job in the background) and may handle."""
    return [number for number in numbers if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextlib.contextmanager
def handling(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Handle these signals in a block. Those that are ignored stay ignored. Call it in the main thread."""
    before = {number: signal.signal(number, handler) for number in heard(*numbers)}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its supervisor ends for any reason.

    What this process starts does not inherit the descriptor of `ready`.

    Call it first in a supervised process. Without a supervisor, or on another system than Linux, it does nothing. The
    signal is SIGKILL, because a hung process must end, too. Everything acknowledged is already on the disk.
    """
    if (descriptor := os.environ.get(READY, "")).isdecimal():
        with contextlib.suppress(OSError):
            os.set_inheritable(int(descriptor), False)
    supervisor = os.environ.get(SUPERVISED, "")
    if supervisor.isdecimal():  # it orders us to end even if it ignores SIGTERM itself
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if not supervisor.isdecimal() or not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(supervisor):  # it ended before the request was made
        sys.exit(EXIT_CONFIGURATION)


def failed(error: Exception, log: logging.Logger, *, again: Container[str] = ()) -> int:
    """Log why this service ends, and return its exit status, which tells a supervisor whether to start it again.

    It does so for errors that may pass, and for those with a code in `again`.
    """
    supervised = SUPERVISED in os.environ
    ours = known(error)
    if ours is None:
        log.error("the traceback of the next line", exc_info=error)
        log.error("%s: %s. This is a bug in ssmprov", type(error).__name__, error)
        return EXIT_FAULT if supervised else 1
    log.error("%s", ours)
    lasting = not (ours.retry or ours.code in again) or ours.details.get("cause") in LASTING
    return EXIT_CONFIGURATION if supervised and lasting else ours.exit_code


def ready() -> None:
    """Tell the supervisor that this process serves. Only the first call does something, and only in its own child."""
    descriptor = os.environ.pop(READY, "")
    if descriptor.isdecimal() and os.environ.get(SUPERVISED) == str(os.getppid()):
        with contextlib.suppress(OSError):
            os.write(int(descriptor), b"\n")
            os.close(int(descriptor))


def started_at(pid: int) -> int:
    """When a process of this host started, in clock ticks since boot; 0 if that is unknown.

    Together with its id this identifies a process. An id alone may later belong to another process.
    """
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def is_worker(pid: int) -> bool:
    """Whether a process of this host was started as a worker (`python -m workers` or `ssmprov worker`)."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(65_536).split(b"\0")
    except OSError:
        return False
    if (b"-m", b"workers") in pairwise(words):
        return True
    return b"worker" in words and any(os.path.basename(word) == b"ssmprov" for word in words[:3])


def memory_of(pid: int) -> int:
    """How many bytes of memory a process of this host uses; 0 if that is unknown."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def host() -> str:
    """Where a process id is valid: this host, and the process namespace on it."""
    namespace = 0
    with contextlib.suppress(OSError):
        namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{socket.gethostname()[:200]}/{namespace}"


def this() -> tuple[int, int, str]:
    """This process, as others can identify it: id, start, host."""
    return os.getpid(), started_at(os.getpid()), host()


def has_ended(pid: int, started: int) -> bool:
    """Whether that process of this host has certainly ended; False if that is unknown."""
    if pid <= 1 or not started:
        return False
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0] in "ZX" or int(fields[19]) != started
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):
        return False
