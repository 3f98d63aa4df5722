"""Turns rows into tokens to learn from: the question as the filter asks it, and the answer up to its fence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.rwkv7 import Tokenizer
from specialists.grammars import Grammar, Offended
from specialists.rows import MAX_FILE_BYTES, Row, unescaped
from ssmprov import encoding, transcript
from ssmprov.errors import BadRequest
from ssmprov.transcript import FENCE
from training.packing import Sample

SHOWN = 40


@dataclass(frozen=True, slots=True)
class Asked:
    """How question and answer are written: `turn` is the question's turn number, `roles` are the roles of both."""

    turn: int
    roles: tuple[str, str]

    def question(self, prompt: str) -> str:
        """The question without a space at its end. As in the workers, the space is part of the answer's first token."""
        return transcript.full_step(self.turn, self.roles[0], prompt, self.roles[1]).removesuffix(" ")

    @staticmethod
    def answer(text: str) -> str:
        return f" {text}{FENCE}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt, the preferred answer, and the rejected one."""

    line: int
    prompt: str
    chosen: str
    rejected: str


def samples_of(rows: Sequence[Row], asked: Asked, tokenizer: Tokenizer) -> list[Sample]:
    """Each row as tokens. Raises BadRequest if the tokenizer cannot spell a row."""
    encode = covering(tokenizer)
    found = []
    for row in rows:
        question = encode(asked.question(row.prompt), row.line)
        found.append(Sample(question + encode(asked.answer(row.answer), row.line), len(question), row.line))
    return found


def covering(tokenizer: Tokenizer) -> Callable[[str, int], list[int]]:
    """A function that encodes a line's text. It raises BadRequest if the tokens do not spell exactly that text."""

    def encode(text: str, line: int) -> list[int]:
        tokens = tokenizer.encode(text)
        spelt = b"".join(map(tokenizer.piece, tokens))
        if spelt != (wanted := text.encode()):
            at = next((i for i, (a, b) in enumerate(zip(spelt, wanted, strict=False)) if a != b), len(spelt))
            around = wanted[max(0, at - SHOWN // 2) : at + SHOWN // 2].decode(errors="replace")
            raise BadRequest(
                f"line {line}: the model's tokenizer cannot spell this row: it fails at byte {at} of the turn, near "
                f"{around!r}"
            )
        return tokens

    return encode


def read_pairs(path: Path, grammar: Grammar, *, ascii_only: bool) -> list[Pair]:
    """The pairs of a file, one per line: a row of the track, a tab, and the rejected answer, with the escapes of rows.

    Raises BadRequest, which names the line and the reason.
    """
    if not path.is_file():
        raise BadRequest(f"{path} does not exist, but the plan names it as pairs")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise BadRequest(f"{path} has {size} bytes; a file of pairs may have at most {MAX_FILE_BYTES}: split it")
    found = []
    content = path.read_bytes()
    encoding.check_not_utf16(content, str(path))
    for number, data in enumerate(encoding.without_bom(content).split(b"\n"), 1):
        if not data.strip():
            continue
        try:
            found.append(_pair(number, data, grammar, ascii_only))
        except (Offended, UnicodeDecodeError) as error:
            raise BadRequest(f"{path}, line {number}: {error}") from None
    if not found:
        raise BadRequest(f"{path} has no pairs: write one per line: ROW, a tab, and the rejected answer")
    return found


def _pair(number: int, data: bytes, grammar: Grammar, ascii_only: bool) -> Pair:
    if b"\0" in data:
        raise Offended(0, "a NUL is not allowed in text")
    if ascii_only and not data.isascii():
        raise Offended(0, "not ASCII: set ascii = false to allow it, or replace the character")
    row, tab, rejected = data.decode("utf-8").removesuffix("\r").rpartition("\t")
    if not tab or not rejected:
        raise Offended(0, "a pair is a row, a tab, and the rejected answer")
    prompt, answer, _ = grammar.take_apart(row)
    pair = Pair(number, unescaped(prompt, row), unescaped(answer, row), unescaped(rejected, rejected))
    if pair.chosen == pair.rejected:
        raise Offended(0, "both answers are the same, so neither is preferred")
    return pair
