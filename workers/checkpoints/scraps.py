"""Reads what is still readable in a damaged catalogue: row by row, from a copy, and only intact rows."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from ssmprov.errors import Corrupt
from workers.checkpoints import seals
from workers.checkpoints.entries import ENTRY
from workers.checkpoints.seals import ROWS, whole
from workers.checkpoints.tables import APPLICATION, VERSION

_GAP = 4096
"""How far to look beyond the last row found, if the largest number is not known."""

_FIXED = {
    0: b"SQLite format 3\0",
    16: (4096).to_bytes(2, "big"),
    18: bytes([2, 2, 0, 64, 32, 32]),  # with a log; no reserved bytes; payload fractions, which never differ
    28: bytes(4),  # pages: as many as the file has
    44: (4).to_bytes(4, "big"),  # the schema's format
    52: bytes(4),  # no automatic vacuum
    56: (1).to_bytes(4, "big"),  # UTF-8
    60: VERSION.to_bytes(4, "big"),
    68: APPLICATION.to_bytes(4, "big"),
}
"""What the header of each of our catalogues contains, by offset."""


class Scraps:
    """A copy of the catalogue at `kept`, in `directory`, opened as well as possible."""

    def __init__(self, kept: Path, directory: Path) -> None:
        self._kept = kept
        self._copy = directory / "catalogue"
        for suffix in ("", "-wal"):
            source = kept.with_name(kept.name + suffix)
            if source.exists():
                shutil.copyfile(source, self._copy.with_name(self._copy.name + suffix))
        self._incomplete: set[str] = set()
        self.unread_names: list[str] = []
        self._connection = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def _open(self) -> sqlite3.Connection:
        """The copy as it is, or with the header that it must have had."""
        connection = self._connect()
        if not self._copy.exists():
            return connection
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            connection.close()
            with self._copy.open("r+b") as file:
                for offset, data in _FIXED.items():
                    file.seek(offset)
                    file.write(data)
            return self._connect()
        if 1 <= version < VERSION:
            connection.close()
            raise Corrupt(
                f"{self._kept} is a damaged catalogue of an older version, whose rows cannot be checked: restore "
                "the store from a backup",
                file=str(self._kept),
            )
        return connection

    def _connect(self) -> sqlite3.Connection:
        uri = f"file:{quote(os.fsencode(self._copy.absolute()))}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.text_factory = _text
        seals.install(connection)
        return connection

    def complete(self, table: str) -> bool:
        """Whether every row of the table could be read and was intact."""
        return table not in self._incomplete

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        """The intact rows, each with its seal, in the order of their keys."""
        columns = f"{', '.join(ROWS[table])}, seal"
        key = ROWS[table][0]
        found: dict[Any, tuple[Any, ...]] = {}
        for order in ("ASC", "DESC"):  # from both ends, up to the part that cannot be read
            rows, ended = self._scan(f"SELECT {columns} FROM {table} ORDER BY {key} {order}")  # noqa: S608
            found.update((row[0], row) for row in rows)
            if ended:
                break
            self._incomplete.add(table)
        if table == "names" and not self.complete(table):
            for name in self._indexed_names():
                if name not in found:
                    sql = f"SELECT {columns} FROM names WHERE name = ?"  # noqa: S608 (our own words)
                    found.update((row[0], row) for row in self._scan(sql, name)[0])
                    if name not in found:
                        self.unread_names.append(name)
        sound = {each: row for each, row in found.items() if each is not None and whole(row)}
        if len(sound) < len(found):
            self._incomplete.add(table)
            if table == "names":
                self.unread_names += [str(each) for each in found if each not in sound]
        return [sound[each] for each in sorted(sound)]

    def steps(self) -> Iterator[tuple[Any, ...]]:
        """Each step as `entries` shows it, then its row of `reads`, by number; all None if it cannot be read."""
        sql = (
            "SELECT e.*, r.step, r.tokens, r.text, r.seal FROM entries e LEFT JOIN reads r ON r.step = e.number"
            " WHERE e.number = ?"
        )
        last = self._last("steps", "number")
        number = missed = 0
        while number < last if last is not None else missed < _GAP:
            number += 1
            rows, ended = self._scan(sql, number)
            missed = 0 if rows else missed + 1
            if not ended:
                self._incomplete.add("steps")
            if rows or not ended:
                row = rows[0] if rows else (None,) * (ENTRY + 4)
                if not whole(row[:ENTRY]) or not whole(row[ENTRY:]):
                    self._incomplete.add("steps")
                yield row

    def _last(self, table: str, key: str) -> int | None:
        rows, ended = self._scan(f"SELECT max({key}) FROM {table} NOT INDEXED")  # noqa: S608
        if not ended:
            self._incomplete.add(table)
            return None
        return rows[0][0] or 0

    def _indexed_names(self) -> list[str]:
        return [row[0] for row in self._scan("SELECT name FROM names INDEXED BY names_by_step")[0] if row[0]]

    def _scan(self, sql: str, *values: object) -> tuple[list[tuple[Any, ...]], bool]:
        """The rows before an error, and whether there was no error."""
        rows = []
        try:
            for row in self._connection.execute(sql, values):
                rows.append(row)
        except (sqlite3.Error, UnicodeDecodeError):
            return rows, False
        return rows, True


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
