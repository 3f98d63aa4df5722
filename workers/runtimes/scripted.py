"""The scripted runtime: deterministic replies from a JSON file, on real processes and without a model.

    {"replies": [{"after": SUFFIX, "pieces": [STRING, ...]}, ...], "token_delay_s": 0}

After it has read a text that ends with SUFFIX (the first match wins, "" matches every text) it emits the pieces, one
token each, then the end token 0. Text that it reads is byte tokens (1 + byte); pieces have ids from 257 on. Matching
compares ids: any token other than the expected piece starts the matching again. The state is the text and the place in
the script, so a checkpoint can be compared with a transcript.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from ssmprov import encoding
from ssmprov.causes import explained
from ssmprov.errors import BadRequest, Corrupt, NotFound
from ssmprov.rooms import CONFIG
from workers.context import Arrays, Identity
from workers.runtimes.base import Feed, Logits, Plan

FIRST_PIECE = 257
UNLIKELY = -1e4
"""Logit of every token except the expected one: nothing samples it, and nothing is infinite."""


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    after: str
    pieces: list[str]


class Script(msgspec.Struct, forbid_unknown_fields=True):
    replies: list[Reply]
    token_delay_s: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


@dataclass(slots=True)
class _Slot:
    """text: everything read; reply and place: the current reply and its next piece (-1: none)."""

    text: bytearray
    reply: int = -1
    place: int = 0


def open_runtime(plan: Plan) -> ScriptedRuntime:
    """Load a script. Raises NotFound and BadRequest that name the file."""
    try:
        data = script_file(plan.path).read_bytes()
        script = msgspec.json.decode(encoding.without_bom(data), type=Script)
    except FileNotFoundError:
        raise NotFound(f"there is no script {plan.path}") from None
    except OSError as error:
        raise explained(error, "cannot read the script") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"{plan.path} is not a valid script: {error}") from None
    if not all(piece for reply in script.replies for piece in reply.pieces):
        raise BadRequest(f"{plan.path} is not a valid script: one of its pieces is empty")
    return ScriptedRuntime(script, hashlib.sha256(b"scripted" + data).hexdigest(), plan.slots)


def script_file(path: Path) -> Path:
    """The file of a script; a script written `@NAME` comes with ssmprov."""
    name = path.name
    return CONFIG / "scripts" / f"{name[1:]}.json" if name.startswith("@") else path


class ScriptedRuntime:
    """A `Runtime` whose model is a script."""

    def __init__(self, script: Script, fingerprint: str, slots: int) -> None:
        self.identity = Identity(fingerprint, "scripted", "scripted text", "fp32")
        self.slots = slots
        self.state_bytes = 0
        self.context_tokens = None
        self.end_tokens = frozenset({0})
        self.control_tokens: frozenset[int] = frozenset()
        self._script = script
        pieces = sorted({piece for reply in script.replies for piece in reply.pieces})
        self._ids = {piece: FIRST_PIECE + i for i, piece in enumerate(pieces)}
        self._pieces = [b"", *(bytes([b]) for b in range(256)), *(piece.encode() for piece in pieces)]
        self._after = [reply.after.encode() for reply in script.replies]
        self.vocabulary = len(self._pieces)
        self._slots = [_Slot(bytearray()) for _ in range(slots)]

    def tokenize(self, text: str) -> list[int]:
        return [1 + byte for byte in text.encode()]

    def piece(self, token: int) -> bytes:
        return self._pieces[token]

    def load(self, slot: int, arrays: Arrays) -> None:
        if not arrays:
            self._slots[slot] = _Slot(bytearray())
            return
        if set(arrays) != {"text", "place"} or arrays["place"].shape != (2,):
            raise Corrupt("this checkpoint does not hold a scripted state")
        reply, place = (int(n) for n in arrays["place"])
        if reply >= len(self._after) or (reply >= 0 and not 0 <= place <= len(self._script.replies[reply].pieces)):
            raise Corrupt("this checkpoint's place is not in the script")
        self._slots[slot] = _Slot(bytearray(arrays["text"].tobytes()), reply, place)

    def save(self, slot: int) -> Arrays:
        held = self._slots[slot]
        return {
            "text": np.frombuffer(bytes(held.text), np.uint8),
            "place": np.array([held.reply, held.place], np.int32),
        }

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        if self._script.token_delay_s:
            time.sleep(self._script.token_delay_s)
        logits = np.full((len(feeds), self.vocabulary), UNLIKELY, np.float32)
        for row, feed in enumerate(feeds):
            slot = self._slots[feed.slot]
            for token in feed.tokens:
                self._read(slot, token)
            logits[row, self._expected(slot)] = 0.0
        return logits

    def _read(self, slot: _Slot, token: int) -> None:
        expected = self._expected(slot) if slot.reply >= 0 else 0
        slot.text += self._pieces[token]
        if expected and token == expected:
            slot.place += 1
        else:
            slot.reply, slot.place = self._match(slot.text), 0

    def _match(self, text: bytearray) -> int:
        return next((i for i, suffix in enumerate(self._after) if text.endswith(suffix)), -1)

    def _expected(self, slot: _Slot) -> int:
        """The next token of the current reply; 0 at its end or without a reply."""
        pieces = self._script.replies[slot.reply].pieces if slot.reply >= 0 else []
        return self._ids[pieces[slot.place]] if slot.place < len(pieces) else 0
