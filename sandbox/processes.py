"""A tree of processes: who is in it, what memory it holds, and its end."""

from __future__ import annotations

import contextlib
import os
import signal

_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(root: int) -> list[int]:
    """The processes below `root`, parents first. One that ends meanwhile may be missing or listed in vain."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                children.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    found = list(children.get(root, ()))
    for pid in found:  # grows while it is walked
        found += children.get(pid, ())
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    """Resident bytes with shared pages counted once over their sharers; plain resident ones where that is hidden."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    return _resident(pid)


def holds_more_than(limit: int, pids: list[int]) -> bool:
    """Whether the processes together hold more memory. The exact sum is costly: it is taken only near the limit."""
    return sum(map(_resident, pids)) > limit and sum(map(_proportional, pids)) > limit


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_all(first: int) -> dict[int, int]:
    """End every descendant of this process, which has to be a subreaper; the wait statuses of those reaped.

    `first` is killed before the rest: where it is the init of a namespace, the kernel ends all of that at once. Others
    are stopped until no new one appears, since a killer that walks a list never catches up with a fork bomb.
    """
    statuses: dict[int, int] = {}
    _signal(first, signal.SIGKILL)
    while True:
        stopped: set[int] = set()
        while new := set(descendants(os.getpid())) - stopped:
            for pid in new:
                _signal(pid, signal.SIGSTOP)
            stopped |= new
        for pid in stopped:
            _signal(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0)
            while pid:
                statuses[pid] = status
                pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return statuses
