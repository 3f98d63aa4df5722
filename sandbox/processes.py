"""A tree of processes: its members, its memory, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import signal

_PAGE = os.sysconf("SC_PAGE_SIZE")


def descendants(root: int) -> list[int]:
    """The processes below `root`, parents first. A process that ends meanwhile may be listed or not."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:
                children.setdefault(int(file.read().rpartition(b")")[2].split()[1]), []).append(int(entry))
    found = list(children.get(root, ()))
    for pid in found:  # the list grows during the loop
        found += children.get(pid, ())
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE
    return 0


def _proportional(pid: int) -> int:
    """Resident bytes, with shared pages divided among their users, or plain resident bytes if we cannot read that."""
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/smaps_rollup", "rb") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:"))
    return _resident(pid)


def holds_more_than(limit: int, pids: list[int]) -> bool:
    """Whether the processes together use more memory than `limit`. The exact, slow sum is only taken near the limit."""
    return sum(map(_resident, pids)) > limit and sum(map(_proportional, pids)) > limit


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def end_all(first: int) -> dict[int, int]:
    """End every descendant of this process, which must be a subreaper. Returns the wait statuses of those reaped.

    `first` is killed first: if it is the init of a namespace, the kernel then ends the whole namespace. The others are
    stopped until no new ones appear, because killing one after another never catches up with a fork bomb.
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
