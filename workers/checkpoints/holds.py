"""Holds: what a living process needs, so that `gc` leaves it alone.

A holder is a file that its process keeps locked. It lists what the process holds: object ids of 32 bytes, and zeros in
free places. It counts while it is locked, so the holds of a killed process end with it, and no clock is needed. A hold
does not have to survive a power cut, so it does not wait for the disk. Whoever writes an object holds it first.

A lock on the directory orders the two sides: writers share it while they write a hold down; `gc` has it alone from
reading the holds until its decision is carried out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov import locks
from workers.checkpoints.files import locked, usable

ID = 32


class Holds:
    """The holds of one process. `lock` is the store's lock file, which `gc` has to itself."""

    def __init__(self, directory: Path, lock: Path) -> None:
        self._directory = directory
        self._lock_file = lock
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._places: dict[str, int] = {}  # position in the holder's file
        self._free: list[int] = []
        self._end = 0
        self._holder = directory / secrets.token_hex(16)
        self._fd = -1
        self._gate = -1

    def close(self) -> None:
        """Give up all holds."""
        with self._mutex:
            if self._fd >= 0:
                self._holder.unlink(missing_ok=True)
                os.close(self._fd)
                os.close(self._gate)
                self._fd = -1

    @contextmanager
    def hold(self, object_id: str) -> Iterator[None]:
        """Hold an object, which need not exist yet, while the body runs. Raises NoSpace, Unavailable."""
        with self._mutex:
            self._start()
            if not self._counts[object_id]:
                self._write_down(object_id)
            self._counts[object_id] += 1
        try:
            yield
        finally:
            self._release(object_id)

    def _write_down(self, object_id: str) -> None:
        if not self._free:
            self._free.append(self._end)
            self._end += 1
        place = self._free[-1]
        with usable(self._holder), _having(self._gate, self._directory, locks.SHARED):
            os.pwrite(self._fd, bytes.fromhex(object_id), ID * place)
        self._places[object_id] = self._free.pop()

    def _release(self, object_id: str) -> None:
        with self._mutex:
            self._counts[object_id] -= 1
            if self._counts[object_id]:
                return
            del self._counts[object_id]
            place = self._places.pop(object_id)
            # A hold that cannot be erased now ends with the process; what the body did stays done.
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, bytes(ID), ID * place)
                self._free.append(place)

    def _start(self) -> None:
        """Make the holder's file, and lock it before any `gc` can look at it."""
        if self._fd >= 0:
            return
        with usable(self._directory), locked(self._lock_file, shared=True):
            gate = _open_directory(self._directory)
            fd = -1
            try:
                fd = os.open(self._holder, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                locks.lock(fd, locks.EXCLUSIVE | locks.NO_WAIT, self._holder)
            except BaseException:
                for each in (gate, fd):
                    if each >= 0:
                        os.close(each)
                raise
        self._gate, self._fd = gate, fd


@contextmanager
def standing(directory: Path) -> Iterator[set[str]]:
    """What living processes hold; nobody can take a new hold until the body ends."""
    gate = _open_directory(directory)
    try:
        with _having(gate, directory, locks.EXCLUSIVE):
            yield set().union(*(_held(path) or () for path in directory.iterdir()))
    finally:
        os.close(gate)


def drop_dead(directory: Path) -> None:
    """Remove the files of dead processes. Needs the store's lock, so that no holder is just being made."""
    for path in directory.iterdir():
        if _held(path) is None:
            with contextlib.suppress(OSError):  # a directory, which is not ours
                path.unlink(missing_ok=True)


def _held(path: Path) -> set[str] | None:
    """The ids in a holder's file; None if its process is dead, or if it is not a holder's file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        locks.lock(fd, locks.EXCLUSIVE | locks.NO_WAIT, path)
    except BlockingIOError:
        data = os.pread(fd, os.fstat(fd).st_size, 0)
        return {data[at : at + ID].hex() for at in range(0, len(data), ID)}
    finally:
        os.close(fd)
    return None


def _open_directory(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


@contextmanager
def _having(fd: int, path: Path, lock: int) -> Iterator[None]:
    locks.lock(fd, lock, path)
    try:
        yield
    finally:
        locks.lock(fd, locks.RELEASE, path)
