"""The catalogue's tables, and how its file is made and opened."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from ssmprov.errors import BadRequest, Busy, Corrupt, NoSpace, NotFound, SsmprovError, Unavailable, Unsupported
from ssmprov.names import check_model
from workers.checkpoints.files import Files, locked, no_space

APPLICATION = 0x53534D50  # "SSMP"
VERSION = 1
BUSY_S = 30.0

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE identities (
    number INTEGER PRIMARY KEY,
    fingerprint TEXT NOT NULL, architecture TEXT NOT NULL, layout TEXT NOT NULL, dtype TEXT NOT NULL,
    UNIQUE (fingerprint, architecture, layout, dtype)
) STRICT;

-- A parent is inserted before its children, so its number is smaller than theirs.
CREATE TABLE steps (
    number INTEGER PRIMARY KEY,
    object BLOB NOT NULL UNIQUE CHECK (length(object) = 32),
    parent INTEGER REFERENCES steps,
    root INTEGER NOT NULL,          -- the number of its lineage's root
    depth INTEGER NOT NULL,         -- steps from the root, itself included
    tokens INTEGER NOT NULL,        -- since the root
    text_bytes INTEGER NOT NULL,    -- since the root
    step_tokens INTEGER NOT NULL,
    step_bytes INTEGER NOT NULL,
    stored INTEGER NOT NULL,        -- whether the object's file is kept
    bytes INTEGER NOT NULL,         -- of the object's file
    opaque INTEGER NOT NULL,        -- whether its root came without tokens
    exact INTEGER NOT NULL,
    identity INTEGER NOT NULL REFERENCES identities,
    seed INTEGER,
    created REAL NOT NULL,          -- for display only
    kind TEXT NOT NULL,
    settings TEXT NOT NULL,
    lineage BLOB NOT NULL CHECK (length(lineage) = 32)
) STRICT;
CREATE INDEX steps_by_parent ON steps (parent);
CREATE INDEX steps_by_root ON steps (root);

-- A step as it is read: with its parent's id and its identity.
CREATE VIEW entries AS
SELECT
    s.number, s.object, s.parent AS parent_number, (SELECT p.object FROM steps p WHERE p.number = s.parent) AS parent,
    s.root, s.depth, s.tokens, s.text_bytes, s.step_tokens, s.step_bytes, s.stored, s.bytes, s.opaque, s.exact, s.seed,
    s.created, s.kind, s.settings, s.lineage, i.fingerprint, i.dtype
FROM steps s JOIN identities i ON i.number = s.identity;

-- Apart from `steps`, so that walking a lineage reads no text.
CREATE TABLE reads (
    step INTEGER PRIMARY KEY REFERENCES steps ON DELETE CASCADE,
    tokens BLOB NOT NULL,
    text BLOB NOT NULL
) STRICT;

CREATE TABLE names (
    name TEXT PRIMARY KEY,
    step INTEGER NOT NULL REFERENCES steps,
    pinned TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL,
    updated REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_step ON names (step);
CREATE INDEX names_pinned ON names (name) WHERE pinned <> '';

-- Heads that a name left without a child of its own: what an overwrite would lose.
CREATE TABLE history (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL REFERENCES names ON DELETE CASCADE,
    step INTEGER NOT NULL REFERENCES steps
) STRICT;
CREATE INDEX history_by_name ON history (name, number);
CREATE INDEX history_by_step ON history (step);

-- `until` is on the clock of `boot`; a row of another boot goes when this one is older than `lasts`.
CREATE TABLE outcomes (
    request BLOB PRIMARY KEY,
    answer BLOB NOT NULL,
    boot TEXT NOT NULL,
    until REAL NOT NULL,
    lasts REAL NOT NULL
) STRICT;
CREATE INDEX outcomes_by_boot ON outcomes (boot, until);

-- Objects that a living process needs; `holder` names its lock file.
CREATE TABLE holds (holder TEXT NOT NULL, object BLOB NOT NULL, PRIMARY KEY (holder, object)) STRICT, WITHOUT ROWID;

-- Objects whose rows are gone and whose files are about to be.
CREATE TABLE trash (object BLOB PRIMARY KEY) STRICT, WITHOUT ROWID;
"""


def _create_catalogue(path: Path, files: Files, meta: Mapping[str, str]) -> None:
    """Make the catalogue, which appears complete or not at all. Under the store's lock."""
    temporary = path.with_name("catalogue.new")
    for suffix in ("", "-wal", "-shm", "-journal"):
        files.unlink(temporary.with_name(temporary.name + suffix))
    with translated(path), closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(TABLES)
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
    with no_space(path):
        temporary.chmod(0o600)
        fd = files.open(temporary)
        try:
            files.sync(fd)
        finally:
            os.close(fd)
        files.rename(temporary, path)
        files.sync_directory(path.parent)


def prepare_store(directory: Path, path: Path, lock: Path, model: str, files: Files) -> None:
    """See to the store's directories, and make its catalogue where there is no store yet and a model is given.

    Raises NotFound, BadRequest, Corrupt, NoSpace.
    """
    there = path.exists() or path.is_symlink()
    if not there and not model:
        raise NotFound(f"there is no store in {directory}: it has no {path.name}")
    try:
        with no_space(path):
            for parent in (*reversed(directory.absolute().parents), directory):
                if not parent.exists():
                    files.make_directory(parent)
            for name in ("objects", "holders"):
                files.make_directory(directory / name)
            if not there:
                with locked(lock):
                    _create(directory, path, check_model(model), files)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise BadRequest(f"{directory} cannot be used as a store ({error.strerror}: {error.filename})") from error


def _create(directory: Path, path: Path, model: str, files: Files) -> None:
    if path.exists():
        return  # another process was faster
    if any((directory / "objects").iterdir()):
        raise Corrupt(f"{path} is missing, yet there are checkpoints: take it from a backup", file=str(path))
    _create_catalogue(path, files, {"uuid": str(uuid.uuid4()), "model": model})


def open_catalogue(path: Path) -> sqlite3.Connection:
    """A connection with our rules on. Raises Corrupt, Unsupported."""
    if path.is_symlink():
        raise Corrupt(f"{path} is a symbolic link, which a store does not follow", file=str(path))
    uri = f"file:{quote(str(path.absolute()))}?mode=rw"
    with translated(path):
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
                raise Corrupt(f"{path} is no catalogue of checkpoints: take the store from a backup", file=str(path))
            if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
                raise Unsupported(f"{path} was made by another version of ssmprov: use that one")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite as ours, naming the file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if ours := _ours(error, path):
            raise ours from error
        raise


def _ours(error: sqlite3.DatabaseError, path: Path) -> SsmprovError | None:
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    undecodable = str(error).startswith("Could not decode to UTF-8")  # raised by Python, with no code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or undecodable:
        return Corrupt(f"{path} is damaged ({error}): take the store from a backup", file=str(path))
    if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the log, or its index
        return NoSpace(
            f"the disk is full: {path} was not changed; free some space and try again",
            file=str(path),
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Busy(f"{path} is locked by another process: try again", retry_ms=1000, file=str(path))
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return None  # a mistake in our SQL is a fault, not a condition of the disk
    return Unavailable(f"{path} cannot be used ({error}): see to its disk and its permissions", file=str(path))
