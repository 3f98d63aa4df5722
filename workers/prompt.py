"""The text of a prompt and its tokens, which must spell it exactly."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssmprov.errors import BadRequest
from ssmprov.transcript import HALF_FENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """What a turn needs to know of a runtime's tokens; `spaced` [V] marks those that begin with a space.

    `end` tokens end a turn and are never read, `control` tokens are never sampled. `misfits` lists the tokens that
    cannot follow the first bytes of an open character (b'' for none).
    """

    tokenize: Callable[[str], list[int]]
    piece: Callable[[int], bytes]
    end: frozenset[int]
    control: frozenset[int]
    spaced: Callable[[], NDArray[np.bool_]]
    misfits: Callable[[bytes], list[int]]


class Prompt:
    """The checked text of a prompt, and its tokens. A single trailing space may be withheld for the first sampled
    token.
    """

    def __init__(self, data: bytes, vocabulary: Vocabulary, *, heal: bool) -> None:
        """Raises BadRequest for bytes that are not text, and for text that the tokenizer changes."""
        text = check_text(data)
        self.bytes = data
        self.half_step = text.endswith(HALF_FENCE)
        self.withheld = heal and not self.half_step and text.endswith(" ")
        self.tokens = spell(vocabulary, text[:-1] if self.withheld else text)
        if self.withheld:
            spell(vocabulary, text)


def check_text(data: bytes) -> str:
    """The text of some bytes. Raises BadRequest with the offset for bytes that are not UTF-8 or contain U+0000."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"the prompt is not valid UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}"
        ) from None
    if "\0" in text:
        raise BadRequest(f"the prompt contains U+0000 at offset {data.index(0)}: remove it")
    return text


def spell(vocabulary: Vocabulary, text: str) -> list[int]:
    """Tokens that spell a text exactly. Raises BadRequest if the tokenizer loses something."""
    tokens = vocabulary.tokenize(text)
    if b"".join(map(vocabulary.piece, tokens)) != text.encode():
        raise BadRequest("this model's tokenizer would change the prompt, so the model cannot read it")
    return tokens


def characters(opened: bytes, piece: bytes) -> int | None:
    """How many characters a piece completes or opens after the first bytes of an open one; None if it is not text."""
    try:
        text = (opened + piece).decode()
    except UnicodeDecodeError:
        return _with_open_end(opened + piece)
    return None if "\0" in text else len(text)


def _with_open_end(data: bytes) -> int | None:
    """How many characters some bytes have, the last of which may be incomplete; None if they are not text."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    try:
        text = decoder.decode(data)
    except UnicodeDecodeError:
        return None
    pending: bytes = decoder.getstate()[0]
    surrogate = pending[:1] == b"\xed" and pending[1:2] >= b"\xa0"  # Python rejects it only at its last byte
    return None if "\0" in text or surrogate else len(text) + bool(pending)
