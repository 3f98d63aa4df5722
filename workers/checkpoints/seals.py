"""A checksum for every row of the catalogue, which finds what SQLite itself cannot notice.

SQLite finds a page that is no page. It does not find a bit that has flipped in a number or a letter: a name would then
stand at another checkpoint. So each row carries a seal over all that it says, and a step's also over what it points at.
A seal is no signature: it is made against accidents, and whoever can write the file can write the seals.
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
"""The columns that a row's seal covers, by table. A step is sealed as the view `entries` shows it."""

_pack = msgspec.msgpack.Encoder().encode

ENTRY_COLUMNS = (
    "number, object, parent_number, parent, root, depth, tokens, text_bytes, step_tokens, step_bytes, stored, bytes,"
    " opaque, exact, seed, created, kind, settings, lineage, fingerprint, dtype"
)


def seal(*values: object) -> bytes:
    """8 bytes over values of the types that SQLite knows. Equal values of different types have different seals."""
    return _digest(values)


def _digest(values: Sequence[object]) -> bytes:
    return hashlib.blake2b(_pack(values), digest_size=8).digest()


def install(connection: sqlite3.Connection) -> None:
    """Let the connection's SQL call `seal`."""
    connection.create_function("seal", -1, seal, deterministic=True)


def seal_of(table: str) -> str:
    """SQL: what the seal of a row of `table` should be."""
    if table == "steps":
        return f"(SELECT seal({ENTRY_COLUMNS}) FROM entries WHERE entries.number = steps.number)"  # noqa: S608
    return f"seal({', '.join(ROWS[table])})"


def whole(row: Sequence[object]) -> bool:
    """Whether a row that ends with its seal is the one that was written."""
    return _digest(row[:-1]) == row[-1]
