"""Preparing a store's directory, and opening its catalogue."""

from __future__ import annotations

import functools
import os
import sqlite3
import stat
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from ssmprov.causes import explained, shown
from ssmprov.errors import Corrupt, NotFound, Unsupported
from ssmprov.names import check_model
from workers.checkpoints import seals
from workers.checkpoints.build import SUCCESSOR, building, create_tables, succeed
from workers.checkpoints.files import Files, locked, no_space, usable
from workers.checkpoints.migrate import migrate, version_of
from workers.checkpoints.sqlite_errors import damaged, translated
from workers.checkpoints.tables import APPLICATION, VERSION, statements

BUSY_S = 30.0


def prepare_store(directory: Path, path: Path, lock: Path, model: str, files: Files) -> None:
    """Prepare the store's directories; if there is no store yet and a model is given, make its catalogue.

    Raises NotFound, BadRequest, Corrupt, NoSpace.
    """
    there = path.exists() or path.is_symlink() or path.with_name(SUCCESSOR).exists()
    if not there and not model:
        raise NotFound(f"there is no store in {directory}: it has no {path.name}")
    try:
        with no_space(path):
            make_directories(directory, files)
            if not there:
                with locked(lock):
                    _create(directory, path, check_model(model), files)
    except OSError as error:
        raise explained(error, f"{shown(directory)} cannot be used as a store") from error


def finish_succession(path: Path, lock: Path, files: Files) -> None:
    """Finish a replacement that a repair or a backup did not finish. The store must be in use."""
    successor = path.with_name(SUCCESSOR)
    if successor.exists():
        with usable(path), locked(lock):
            if successor.exists():  # otherwise another process was faster
                succeed(path, files)


def make_directories(directory: Path, files: Files) -> None:
    """The directories of the store, none of them a link. Raises OSError."""
    for parent in (*reversed(directory.absolute().parents), directory):
        if not parent.exists():
            files.make_directory(parent)
    for name in ("objects", "holders"):
        files.make_directory(directory / name)


def _create(directory: Path, path: Path, model: str, files: Files) -> None:
    if path.exists():
        return  # another process was faster
    if any((directory / "objects").iterdir()):
        raise Corrupt(
            f"{path} is missing, but there are checkpoints: restore it from a backup, or recover what you can "
            f"with `ssmprov ckpt verify --repair --store {directory} --model {model}`",
            file=str(path),
        )
    with building(path, files) as connection:
        create_tables(connection)
        write_meta(connection, {"uuid": str(uuid.uuid4()), "model": model})


def write_meta(connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
    connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta.items())
    connection.execute(f"UPDATE meta SET seal = {seals.seal_of('meta')}")  # noqa: S608 (our own words)


def open_catalogue(path: Path, lock: Path, files: Files) -> sqlite3.Connection:
    """A connection with our settings to a catalogue of this version. Raises Corrupt, Unsupported."""
    check_files(path)
    uri = f"file:{quote(os.fsencode(path.absolute()))}?mode=rw"
    with translated(path):
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            seals.install(connection)
            _begin(connection, path)
            if version_of(connection) < VERSION:
                migrate(connection, path, lock, files)
            if tables_of(connection) != _fresh_tables():
                raise damaged(path, "its tables are not those of ssmprov")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        except BaseException:
            connection.close()
            raise
    return connection


def _begin(connection: sqlite3.Connection, path: Path) -> None:
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA synchronous = FULL")
        _check_header(connection, path)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # such as an unknown format or encoding
            raise damaged(path, str(error)) from error
        raise


def check_files(path: Path) -> None:
    """Raises Corrupt unless the catalogue and SQLite's files beside it are plain files."""
    for suffix in ("", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        try:
            mode = file.lstat().st_mode
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(mode):
            raise _stranger(file, "is a symbolic link, which a store does not follow")
        if not stat.S_ISREG(mode):
            raise _stranger(file, "is not a regular file")


def _stranger(file: Path, what: str) -> Corrupt:
    return Corrupt(
        f"{file} {what}: move it away, and run `ssmprov ckpt verify --repair --store {file.parent}`", file=str(file)
    )


def _check_header(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        raise damaged(path, "it is not a catalogue of checkpoints")
    version = version_of(connection)
    if version != VERSION and (version < 1 or tables_of(connection) == _fresh_tables()):
        raise damaged(path, "its version does not match its tables")
    if version > VERSION:
        raise Unsupported(
            f"{path} has the version {version}, and this ssmprov reads up to {VERSION}: update ssmprov, or restore "
            "the store from a backup that this version made"
        )
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        raise damaged(path, "its header does not say that it has a log")


def tables_of(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    return set(connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))


@functools.cache
def _fresh_tables() -> set[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        for statement in statements():
            connection.execute(statement)
        return tables_of(connection)
