"""A step as the catalogue's view `entries` shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ssmprov.ops import Row
from ssmprov.textdigest import TextDigest, stored

ENTRY = 23
"""Columns of the view `entries`."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the view `entries`. Numbers are local to the catalogue; ids are hexadecimal."""

    number: int
    object: str
    parent_number: int | None
    parent: str
    root: int
    depth: int
    tokens: int
    text_bytes: int
    text_digest: bytes
    step_tokens: int
    step_bytes: int
    stored: bool
    size: int  # of the object's file
    opaque: bool
    exact: bool
    seed: int | None
    created: float
    kind: str
    settings: str  # JSON
    lineage: bytes
    fingerprint: str
    dtype: str

    @property
    def digest(self) -> TextDigest:
        """The digest of the text since the root."""
        return stored(self.text_bytes, self.text_digest)

    def row(self) -> tuple[Any, ...]:
        """The values in the order of the view."""
        return (
            self.number,
            bytes.fromhex(self.object),
            self.parent_number,
            bytes.fromhex(self.parent) or None,
            self.root,
            self.depth,
            self.tokens,
            self.text_bytes,
            self.text_digest,
            self.step_tokens,
            self.step_bytes,
            int(self.stored),
            self.size,
            int(self.opaque),
            int(self.exact),
            self.seed,
            self.created,
            self.kind,
            self.settings,
            self.lineage,
            self.fingerprint,
            self.dtype,
        )


def entry_unchecked(row: Sequence[Any]) -> Entry:
    """The first columns of a row, those of the view."""
    values = list(row[: ENTRY - 1])
    values[1] = values[1].hex()
    values[3] = values[3].hex() if values[3] else ""
    for flag in (11, 13, 14):
        values[flag] = bool(values[flag])
    return Entry(**dict(zip(Entry.__struct_fields__, values, strict=True)))


def row_of(step: Entry, name: str, model: str, pinned: str = "") -> Row:
    """A step as the wire shows it."""
    return Row(
        name=name,
        object=step.object,
        model=model,
        fingerprint=step.fingerprint,
        parent=step.parent,
        tokens=step.tokens,
        bytes=step.size if step.stored else 0,
        created=step.created,
        steps=step.depth,
        pinned=pinned,
        opaque=step.opaque,
        exact=step.exact,
        stored=step.stored,
        text_bytes=step.text_bytes,
        text_digest=step.text_digest.hex(),
    )
