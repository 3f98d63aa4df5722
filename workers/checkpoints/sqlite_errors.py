"""SQLite's errors as ours, with the name of the file."""

from __future__ import annotations

import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov.causes import (
    DISK,
    NO_LOCKS,
    NO_SPACE,
    PERMISSION,
    READ_ONLY,
    TOO_LARGE,
    Cause,
    cause_of,
    of_cause,
    shown,
)
from ssmprov.errors import Busy, Corrupt, SsmprovError

PAGE = 65_536
"""The largest page of a database."""

_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_CONSTRAINT,  # our rows break no rule: an index or a row was changed
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    }
)
_DISK = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH}
)
_LOCKS = frozenset(
    {
        sqlite3.SQLITE_PROTOCOL,  # "locking protocol": the processes do not see each other's locks
        sqlite3.SQLITE_IOERR_LOCK,
        sqlite3.SQLITE_IOERR_RDLOCK,
        sqlite3.SQLITE_IOERR_UNLOCK,
        sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
        sqlite3.SQLITE_IOERR_SHMLOCK,
        sqlite3.SQLITE_IOERR_SHMMAP,  # memory that processes share, which network file systems lack, too
    }
)
_DAMAGE_SAYS = ("Could not decode to UTF-8", "user-defined function raised exception", "string or blob too big")
"""Beginnings of what Python and SQLite say about text that is not text: they give no code for it."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours, with the name of the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if ours := _ours(error, path):
            raise ours from error
        raise
    except UnicodeDecodeError as error:  # from Python, about text that SQLite quotes from the file
        raise damaged(path, "a text in it is not valid UTF-8") from error


def damaged(path: Path, what: str) -> Corrupt:
    """The error for a damaged catalogue, with what to do about it."""
    return Corrupt(
        f"{path} is damaged: {what}. See what is affected with `ssmprov ckpt verify --store {path.parent}`. To "
        "repair it, stop its workers and add --repair, or restore the store from a backup",
        file=str(path),
        what=what,
    )


def _is_as_large_as_may_be(path: Path) -> bool:
    """Whether a limit on file sizes is in the way; SQLite calls that an error of the disk."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return False
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
    return any(file.stat().st_size + PAGE > limit for file in files if file.exists())


def _ours(error: sqlite3.DatabaseError, path: Path) -> SsmprovError | None:
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code in _DAMAGE or str(error).startswith(_DAMAGE_SAYS):
        return damaged(path, str(error))
    unchanged = f"{shown(path)} was not changed"
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the log, or for its index
        return of_cause(NO_SPACE, unchanged, path)
    if code == sqlite3.SQLITE_IOERR and _is_as_large_as_may_be(path):
        return of_cause(TOO_LARGE, unchanged, path)
    if extended in _LOCKS:
        return of_cause(NO_LOCKS, f"{shown(path)} cannot be locked ({error})", path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} is locked by another process: try again", retry_ms=1000, file=str(path))
    if code not in _DISK:
        return None  # a mistake in our SQL is a bug, not a condition of the disk
    return of_cause(_condition(path), f"{shown(path)} cannot be used ({error})", path)


def _condition(path: Path) -> Cause:
    """What keeps SQLite from using a file, for which it has one code for all conditions.

    It must not open the file itself: to close it would release SQLite's locks.
    """
    try:
        os.close(os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            return READ_ONLY
    except OSError as error:
        return cause_of(error)
    files = [file for suffix in ("", "-wal", "-shm") if (file := path.with_name(path.name + suffix)).exists()]
    return DISK if all(os.access(file, os.R_OK | os.W_OK) for file in (path.parent, *files)) else PERMISSION
