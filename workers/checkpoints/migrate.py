"""A catalogue of an older version becomes one of this version: in one transaction, beside a copy of what it was.

Each version has one function here that leads from the version before. The tables are made anew rather than altered, so
that a migrated catalogue has exactly the tables of a fresh one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from workers.checkpoints.build import building
from workers.checkpoints.files import Files, locked
from workers.checkpoints.seals import ROWS, seal_of
from workers.checkpoints.sqlite_errors import damaged
from workers.checkpoints.tables import VERSION, statements


def migrate(connection: sqlite3.Connection, path: Path, lock: Path, files: Files) -> None:
    """Bring the catalogue up to this version. Another process may do so at the same time: one of them does it."""
    with locked(lock):
        version = version_of(connection)
        if version >= VERSION:
            return
        with building(path.with_name(f"{path.name}.v{version}"), files) as copy:
            connection.backup(copy)
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA legacy_alter_table = ON")  # a renamed table leaves the words of the others alone
        connection.execute("BEGIN EXCLUSIVE")
        try:
            for step in range(version, VERSION):
                _TO[step + 1](connection)
            if connection.execute("PRAGMA foreign_key_check").fetchone():
                raise damaged(path, "a row of it points nowhere, so it was left at its old version")
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


def _seals(connection: sqlite3.Connection) -> None:
    """Version 2: every row has a seal, and a name's row tells its object."""
    old = {
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
    connection.execute("DROP VIEW entries")
    indexes = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
    for (index,) in indexes:
        connection.execute(f'DROP INDEX "{index}"')
    for table in old:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    for statement in statements():
        connection.execute(statement)
    for table, columns in old.items():
        source = f"SELECT {columns} FROM old_{table}"  # noqa: S608 (our own words)
        if table == "names":
            columns += ", object"
            source = (
                "SELECT n.name, n.step, n.pinned, n.created, n.updated, s.object"
                " FROM old_names n LEFT JOIN old_steps s ON s.number = n.step"
            )
        connection.execute(f"INSERT INTO {table} ({columns}) {source}")
    for table in ("steps", *ROWS):
        connection.execute(f"UPDATE {table} SET seal = {seal_of(table)}")  # noqa: S608
    for table in reversed(old):
        connection.execute(f"DROP TABLE old_{table}")


def _no_holds(connection: sqlite3.Connection) -> None:
    """Version 3: holds stand in their holders' files."""
    connection.execute("DROP TABLE IF EXISTS holds")


_TO: dict[int, Callable[[sqlite3.Connection], None]] = {2: _seals, 3: _no_holds}
