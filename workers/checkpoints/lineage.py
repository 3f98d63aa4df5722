"""What one step read, and the digest that ties a lineage together.

The digest of a step covers the digest of its parent, the parent's object and everything recorded about the step except
its time. The step's object contains it, so the object's id vouches for every token, text and id back to the root.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import msgspec
import numpy as np

from ssmprov.errors import BadRequest
from workers.context import Read, Snapshot

ROOT_DIGEST = bytes(32)
"""The parent digest of a root."""

MAX_SEED = 1 << 63
MAX_TOTAL = 1 << 62
"""The most tokens that a foreign state may claim, so that the catalogue can count on from there."""


class StepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`parent` is an object's id, '' at a root; `tokens` int32 little-endian; `total` counts tokens since the root."""

    parent: str
    kind: str
    tokens: bytes
    text: bytes
    settings: dict[str, float]
    seed: int | None
    total: int
    exact: bool
    dtype: str

    @property
    def step_tokens(self) -> int:
        return len(self.tokens) // 4

    @property
    def opaque(self) -> bool:
        """Whether it is a root that came as a bare state, so that nobody knows what it has read."""
        return not self.parent and self.kind == "import" and not self.tokens

    def digest(self, before: bytes) -> bytes:
        """SHA-256 over the parent's digest, the step's facts as canonical JSON, its tokens and its text."""
        facts = [
            self.parent,
            self.kind,
            len(self.tokens),
            len(self.text),
            settings_json(self.settings),
            self.seed,
            self.total,
            self.exact,
            self.dtype,
        ]
        head = json.dumps(facts, ensure_ascii=True, separators=(",", ":")).encode()
        return hashlib.sha256(b"".join((before, head, b"\n", self.tokens, self.text))).digest()

    def check(self, parent_total: int) -> None:
        """Raise BadRequest for an impossible step: counts that do not add up, or text that is not text."""
        if len(self.tokens) % 4:
            raise BadRequest("a step's token ids are not whole 32-bit numbers")
        if self.opaque:
            if self.text or not 0 <= self.total < MAX_TOTAL:
                raise BadRequest("a root imported without tokens cannot have a text or an impossible token count")
        elif self.total != parent_total + self.step_tokens:
            raise BadRequest(
                f"the state has read {self.total} tokens, its parent {parent_total} and this step {self.step_tokens}"
            )
        if self.seed is not None and not 0 <= self.seed < MAX_SEED:
            raise BadRequest("a seed must be between 0 and 2^63 - 1")
        if not 1 <= len(self.kind) <= 32 or len(self.settings) > 256:
            raise BadRequest("a step's kind must have 1 to 32 letters, and its settings at most 256 entries")
        try:
            text = self.text.decode()
        except UnicodeDecodeError as error:
            raise BadRequest("a step's text is not valid UTF-8") from error
        if "\0" in text:
            raise BadRequest("a step's text contains U+0000")


def settings_json(settings: Mapping[str, float]) -> str:
    """Canonical JSON, so that it can be hashed."""
    values = {str(key): float(value) for key, value in settings.items()}
    if not all(math.isfinite(value) for value in values.values()):
        raise BadRequest("a setting is not a finite number")
    return json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def record_of(snapshot: Snapshot, read: Read, dtype: str) -> StepRecord:
    """The record of the step that led from its parent to `snapshot`."""
    return StepRecord(
        parent=snapshot.parent,
        kind=read.kind,
        tokens=np.asarray(read.tokens).astype("<i4", casting="same_kind").tobytes(),
        text=read.text,
        settings={key: float(value) for key, value in read.settings.items()},
        seed=None if snapshot.seed is None else int(snapshot.seed),
        total=int(snapshot.tokens),
        exact=bool(snapshot.exact),
        dtype=dtype,
    )
