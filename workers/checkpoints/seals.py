"""A checksum for every row of the catalogue. It finds damage that SQLite cannot notice.

SQLite finds a broken page. It does not find a flipped bit in a number or a letter, after which a name might point to
another checkpoint. So each row carries a seal over its values; the seal of a step also covers the rows that it points
to. A seal is not a signature: it guards against accidents, and whoever can write the file can write seals.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence

import msgspec

ROWS = {
    "meta": ("key", "value"),
    "identities": ("number", "fingerprint", "architecture", "layout", "dtype"),
    "reads": ("step", "tokens", "text"),
    "names": ("name", "step", "object", "pinned", "created", "updated"),
    "history": ("number", "name", "step"),
    "outcomes": ("request", "answer", "boot", "until", "lasts"),
}
"""The columns that the seal of a row covers, by table. A step is sealed as the view `entries` shows it."""

_pack = msgspec.msgpack.Encoder().encode

ENTRY_COLUMNS = (
    "number, object, parent_number, parent, root, depth, tokens, text_bytes, text_digest, step_tokens, step_bytes,"
    " stored, bytes, opaque, exact, seed, created, kind, settings, lineage, fingerprint, dtype"
)


def seal(*values: object) -> bytes:
    """8 bytes over values of SQLite's types. Equal values of different types have different seals."""
    return _digest(values)


def _digest(values: Sequence[object]) -> bytes:
    return hashlib.blake2b(_pack(values), digest_size=8).digest()


def install(connection: sqlite3.Connection) -> None:
    """Let SQL of the connection call `seal`."""
    connection.create_function("seal", -1, seal, deterministic=True)


def seal_of(table: str) -> str:
    """SQL: the correct seal of a row of `table`."""
    if table == "steps":
        return f"(SELECT seal({ENTRY_COLUMNS}) FROM entries WHERE entries.number = steps.number)"  # noqa: S608
    return f"seal({', '.join(ROWS[table])})"


def whole(row: Sequence[object]) -> bool:
    """Whether a row that ends with its seal is unchanged."""
    return _digest(row[:-1]) == row[-1]
