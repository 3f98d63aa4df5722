"""New catalogue files: they are written under another name, and renamed once they are complete and durable."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ssmprov.errors import Unavailable
from workers.checkpoints import seals
from workers.checkpoints.files import Files, no_space
from workers.checkpoints.sqlite_errors import translated
from workers.checkpoints.tables import APPLICATION, VERSION, statements

TEMPORARY = "catalogue.new"
SUCCESSOR = "catalogue.next"
"""A complete catalogue that is about to replace the current one. Whoever finds it finishes the replacement."""


@contextmanager
def building(path: Path, files: Files) -> Iterator[sqlite3.Connection]:
    """A connection to an empty database. It appears as `path` when the body ends, or not at all. Needs a lock."""
    temporary = path.with_name(TEMPORARY)
    _remove(temporary, files)
    try:
        with translated(path), no_space(path):
            os.close(files.create(temporary))
            with closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = OFF")  # the whole file is flushed at the end
                seals.install(connection)
                yield connection
                if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    raise Unavailable(f"{temporary} is used by another process: try again", file=str(temporary))
            fd = files.open(temporary)
            try:
                files.sync(fd)
            finally:
                os.close(fd)
            files.rename(temporary, path)
            files.sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(temporary, files)
        raise


def create_tables(connection: sqlite3.Connection) -> None:
    """The tables of this version in an empty database."""
    for statement in statements():
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def succeed(path: Path, files: Files) -> None:
    """Replace the catalogue by its successor. Nobody may have the catalogue open.

    The old log goes first, durably: SQLite would otherwise apply it to the new file. If this is interrupted, whoever
    opens the store next does the rest.
    """
    for suffix in ("-wal", "-shm", "-journal"):
        files.unlink(path.with_name(path.name + suffix))
    files.sync_directory(path.parent)
    files.rename(path.with_name(SUCCESSOR), path)
    files.sync_directory(path.parent)


def _remove(path: Path, files: Files) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        files.unlink(path.with_name(path.name + suffix))
