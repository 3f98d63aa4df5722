"""Upgrades a catalogue of an older version to this one: in one transaction, on a copy beside the old file.

Each older version has one function here that leads directly to this version. Tables that differ are made anew, not
altered, so a migrated catalogue has exactly the tables of a new one.
"""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssmprov.textdigest import BYTES, TextDigest, stored
from workers.checkpoints.build import building
from workers.checkpoints.files import Files, locked
from workers.checkpoints.seals import ROWS, seal_of
from workers.checkpoints.sqlite_errors import damaged
from workers.checkpoints.tables import VERSION, statements


def migrate(connection: sqlite3.Connection, path: Path, lock: Path, files: Files) -> None:
    """Upgrade the catalogue to this version. If several processes try at the same time, one of them does it."""
    with locked(lock):
        version = version_of(connection)
        if version >= VERSION:
            return
        with building(path.with_name(f"{path.name}.v{version}"), files) as copy:
            connection.backup(copy)
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA legacy_alter_table = ON")  # renaming a table must not change the SQL of the others
        connection.execute("BEGIN EXCLUSIVE")
        try:
            _FROM[version](connection, path)
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise damaged(path, "one of its rows points nowhere, so it was left at its old version")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute("PRAGMA legacy_alter_table = OFF")


def version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _from_1(connection: sqlite3.Connection, path: Path) -> None:
    """Version 1: rows had no seals, and the row of a name did not name its object."""
    connection.execute("DROP TABLE holds")
    _make_anew(connection, path)


def _from_2(connection: sqlite3.Connection, path: Path) -> None:
    """Version 2: there was a table of holds, and the seals differed."""
    connection.create_function("seal_2", -1, _seal_2, deterministic=True)
    _check_seals(connection, path, "seal_2")
    connection.execute("DROP TABLE holds")
    _make_anew(connection, path)


def _from_3(connection: sqlite3.Connection, path: Path) -> None:
    """Version 3: steps had no digest of the text."""
    _check_seals(connection, path, "seal")
    _make_anew(connection, path)


_COLUMNS = {
    "meta": "key, value",
    "identities": "number, fingerprint, architecture, layout, dtype",
    "steps": "number, object, parent, root, depth, tokens, text_bytes, step_tokens, step_bytes, stored, bytes,"
    " opaque, exact, identity, seed, created, kind, settings, lineage",
    "reads": "step, tokens, text",
    "names": "name, step, pinned, created, updated",
    "history": "number, name, step",
    "outcomes": "request, answer, boot, until, lasts",
    "trash": "object",
}
"""What every older version had."""


def _check_seals(connection: sqlite3.Connection, path: Path, seal: str) -> None:
    """Raises Corrupt if a row does not match its seal: the new seal would hide that it was changed."""
    for table in ("steps", *ROWS):
        former = former_seal_of(table).replace("seal(", f"{seal}(", 1)
        if connection.execute(f"SELECT 1 FROM {table} WHERE seal IS NOT {former} LIMIT 1").fetchone():  # noqa: S608
            raise damaged(path, f"a row of {table} was changed, so it was left at its old version")


def former_seal_of(table: str) -> str:
    """SQL: the correct seal of a row of `table` in versions 2 and 3."""
    return seal_of(table).replace(" text_digest,", "")


def _make_anew(connection: sqlite3.Connection, path: Path) -> None:
    """Make all tables as they are now, copy every row, and fill in what is new."""
    connection.execute("DROP VIEW entries")
    indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for (index,) in indexes:
        connection.execute(f'DROP INDEX "{index}"')
    for table in _COLUMNS:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in statements():
        connection.execute(statement)
    for table, columns in _COLUMNS.items():
        source = f"SELECT {columns} FROM old_{table}"  # noqa: S608 (our own words)
        if table == "names":
            columns += ", object"
            source = (
                "SELECT n.name, n.step, n.pinned, n.created, n.updated, s.object"
                " FROM old_names n LEFT JOIN old_steps s ON s.number = n.step"
            )
        elif table == "steps":
            columns += ", text_digest"
            source = source.replace(" FROM", f", zeroblob({BYTES}) FROM")
        connection.execute(f"INSERT INTO {table} ({columns}) {source}")
    _digest_all(connection, path)
    _seal_all(connection)
    for table in reversed(_COLUMNS):
        connection.execute(f"DROP TABLE old_{table}")


def _digest_all(connection: sqlite3.Connection, path: Path) -> None:
    """Compute the digest of each step's text from its parent's, parents first. Raises Corrupt if a text is missing."""
    rows = connection.execute(
        "SELECT s.number, s.text_bytes, s.parent, r.text FROM steps s LEFT JOIN reads r ON r.step = s.number"
        " ORDER BY s.number"
    )
    for number, text_bytes, parent, text in rows:
        above = connection.execute("SELECT text_bytes, text_digest FROM steps WHERE number = ?", (parent,)).fetchone()
        digest = stored(*above) if above else TextDigest()
        if text is None or (parent is not None and not above) or digest.length + len(text) != text_bytes:
            raise damaged(path, f"the text of step {number} is not whole, so it was left at its old version")
        digest = digest.plus(text)
        connection.execute("UPDATE steps SET text_digest = ? WHERE number = ?", (digest.data, number))


def _seal_all(connection: sqlite3.Connection) -> None:
    for table in ("steps", *ROWS):
        connection.execute(f"UPDATE {table} SET seal = {seal_of(table)}")  # noqa: S608 (our own words)


def _seal_2(*values: Any) -> bytes:
    """The seal of version 2: the type, length and bytes of each value."""
    digest = hashlib.blake2b(digest_size=8)
    for value in values:
        if isinstance(value, str):
            kind, data = b"s", value.encode()
        elif isinstance(value, bytes):
            kind, data = b"b", value
        elif isinstance(value, float):
            kind, data = b"f", struct.pack("<d", value)
        else:
            kind, data = b"n", b"" if value is None else b"%d" % value
        digest.update(b"%b%d:%b" % (kind, len(data), data))
    return digest.digest()


_FROM: dict[int, Callable[[sqlite3.Connection, Path], None]] = {1: _from_1, 2: _from_2, 3: _from_3}
"""Upgrade an older catalogue to this version; leave a newer one alone."""
