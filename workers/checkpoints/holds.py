"""Holds: what a living process needs, and `gc` therefore leaves alone.

A holder is a lock file that its process keeps locked. A hold is a row (holder, object); it counts while the holder's
file is locked, so those of a process that was killed count no more, and no clock is asked. A hold needs to survive no
power cut and so waits for no disk. Whoever writes an object holds it first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov.errors import SsmprovError
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.files import locked


class Holds:
    """Those of one process. `lock` is the store's lock file, which `gc` has to itself."""

    def __init__(self, directory: Path, lock: Path, catalogue: Catalogue) -> None:
        self._directory = directory
        self._lock_file = lock
        self._catalogue = catalogue
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._holder = secrets.token_hex(16)
        self._fd = -1

    def close(self) -> None:
        """Give up everything that is still held."""
        with self._mutex:
            if self._fd >= 0:
                with contextlib.suppress(SsmprovError), self._catalogue.passing_change() as connection:
                    connection.execute("DELETE FROM holds WHERE holder = ?", (self._holder,))
                (self._directory / self._holder).unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = -1

    @contextmanager
    def hold(self, object_id: str) -> Iterator[None]:
        """Hold an object, which need not exist yet, while the body runs."""
        with self._mutex:
            self._start()
            if not self._counts[object_id]:
                with self._catalogue.passing_change() as connection:
                    connection.execute(
                        "INSERT OR IGNORE INTO holds VALUES (?, ?)", (self._holder, bytes.fromhex(object_id))
                    )
            self._counts[object_id] += 1
        try:
            yield
        finally:
            self._release(object_id)

    def _release(self, object_id: str) -> None:
        with self._mutex:
            self._counts[object_id] -= 1
            if self._counts[object_id]:
                return
            del self._counts[object_id]
            # A row that cannot be deleted now goes with the process; what the body has done stays done.
            with contextlib.suppress(SsmprovError, sqlite3.Error), self._catalogue.passing_change() as connection:
                connection.execute(
                    "DELETE FROM holds WHERE holder = ? AND object = ?", (self._holder, bytes.fromhex(object_id))
                )

    def _start(self) -> None:
        """Make the holder's file, locked before any `gc` can look at it."""
        if self._fd >= 0:
            return
        with locked(self._lock_file, shared=True):
            fd = os.open(self._directory / self._holder, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._fd = fd


def drop_dead(directory: Path, connection: sqlite3.Connection) -> None:
    """Forget the holds of processes that are gone. Inside a change, with the store's lock."""
    for (holder,) in connection.execute("SELECT DISTINCT holder FROM holds").fetchall():
        if not _alive(directory / holder):
            connection.execute("DELETE FROM holds WHERE holder = ?", (holder,))
    for path in directory.iterdir():
        if not _alive(path):
            with contextlib.suppress(OSError):  # a directory, which is none of ours
                path.unlink(missing_ok=True)


def _alive(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
