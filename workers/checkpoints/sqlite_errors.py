"""SQLite's errors as ours, with the name of the file."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov.errors import Busy, Corrupt, NoSpace, SsmprovError, Unavailable

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
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the log, or for its index
        return NoSpace(f"the disk is full: {path} was not changed; free some space and try again", file=str(path))
    if code == sqlite3.SQLITE_IOERR and _is_as_large_as_may_be(path):
        return NoSpace(f"{path} was not changed: it has reached the size limit for files (`ulimit -f`)", file=str(path))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} is locked by another process: try again", retry_ms=1000, file=str(path))
    if code not in _DISK:
        return None  # a mistake in our SQL is a bug, not a condition of the disk
    return Unavailable(f"{path} cannot be used ({error}): check its disk and its permissions", file=str(path))
