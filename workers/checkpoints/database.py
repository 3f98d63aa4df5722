"""The catalogue's connection: statements, transactions, seals, and the catalogue's entries about itself.

One connection serves all threads of a `Store` under a lock. A change is one transaction that holds SQLite's write lock
from its first statement, so what it read before it wrote is still true when it commits.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ssmprov.errors import Corrupt, SsmprovError
from workers.checkpoints.seals import ROWS, seal_of, whole
from workers.checkpoints.sqlite_errors import damaged, translated

T = TypeVar("T")


class Database:
    """Raises Corrupt, NoSpace, Busy or Unavailable that names the file when SQLite fails."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection = connection

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def run(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows of one statement."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except (sqlite3.DatabaseError, UnicodeDecodeError):
                with translated(self.path):
                    raise

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction, committed when the body ends and rolled back when it raises."""
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    def apart(self, body: Callable[[], T]) -> T | SsmprovError:
        """Inside a change: the result of the body, or the error that it raised, with all its changes undone."""
        self.run("SAVEPOINT apart")
        try:
            result: T | SsmprovError = body()
        except SsmprovError as error:
            if not self._connection.in_transaction:  # SQLite has rolled back the whole change
                raise
            self.run("ROLLBACK TO apart")
            result = error
        self.run("RELEASE apart")
        return result

    @contextmanager
    def view(self) -> Iterator[sqlite3.Connection]:
        """One reading transaction, or the current change: everything read belongs to one moment."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            with self._transaction("BEGIN") as connection:
                yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, translated(self.path):
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy the catalogue as of one moment; other processes keep writing."""
        with self._lock, translated(self.path):
            self._connection.backup(target)

    # ---- seals ---------------------------------------------------------------------------------------------------
    def damaged(self, what: str) -> Corrupt:
        return damaged(self.path, what)

    def seal(self, table: str, column: str, value: object) -> None:
        """Seal the rows of `table` that were just written, those with `value` in `column`. Inside a change."""
        self.run(f"UPDATE {table} SET seal = {seal_of(table)} WHERE {column} = ?", (value,))  # noqa: S608 (our own words)

    def broken(self, table: str) -> list[Any]:
        """The first columns of the rows of `table` that were changed since they were written."""
        column = "number" if table == "steps" else ROWS[table][0]
        sql = f"SELECT {column} FROM {table} WHERE seal IS NOT {seal_of(table)}"  # noqa: S608
        return [row[0] for row in self.run(sql)]

    # ---- what the catalogue says of itself -----------------------------------------------------------------------
    def meta(self, key: str) -> str | None:
        rows = self.run("SELECT key, value, seal FROM meta WHERE key = ?", (key,))
        if rows and not whole(rows[0]):
            raise self.damaged(f"its entry for {key} was changed")
        return rows[0][1] if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Inside a change."""
        self.run(
            "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )
        self.seal("meta", "key", key)
