"""Mutations of bytes that know nothing of their meaning: flips, cuts, splices, and numbers at the edges."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from random import Random

Mutator = Callable[[Random, bytes, Sequence[bytes]], bytes]
"""Makes a new input from one of the pool, with the others at hand to splice from."""

MAX_BYTES = 1 << 18
"""An input does not grow beyond that."""

_EDGES = (0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 4095, 4096)
_EDGES += (2**15 - 1, 2**15, 2**16 - 1, 2**16, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63)
NUMBERS = tuple(
    struct.pack(order + code, number & (2 ** (8 * size) - 1))
    for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))
    for order in "<>"
    for number in (*_EDGES, 2**64 - 1)
)
"""Edges of integers and lengths, in every width and byte order."""

WORDS = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x80", b"\xc2", b"\xed\xa0\x80", b"\xf4\x8f\xbf\xbf", b"\xef\xbb\xbf")
WORDS += (b"nan", b"-inf", b"1e999", b"-0", b"0x1", b"9" * 40, b"../", b"/", b"~", b"@", b"#", b"%s%n", b"\r\n", b"\n")
WORDS += ("ıİKſ".encode(), "\u202e".encode(), "e\u0301".encode(), b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0000", b"'")


def mutate(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes] = WORDS) -> bytes:
    """One to four faults."""
    draw = random.random
    while True:
        data = _OPERATIONS[int(draw() * len(_OPERATIONS))](random, data, others, words)
        if draw() < 0.6:
            return data[:MAX_BYTES]


def speaking(*words: str | bytes) -> Mutator:
    """A mutator that also puts the words of a language where they do not belong."""
    own = tuple(word.encode() if isinstance(word, str) else word for word in words)
    known = (*WORDS, *own, *own)
    return lambda random, data, others: mutate(random, data, others, known)


def _at(random: Random, data: bytes) -> int:
    return int(random.random() * (len(data) + 1))


def _span(random: Random, data: bytes) -> tuple[int, int]:
    start = _at(random, data)
    length = int(random.random() * 16) if random.random() < 0.7 else int(random.random() * len(data))
    return start, min(len(data), start + 1 + length)


def _flip(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    at = int(random.random() * len(data))
    return data[:at] + bytes([data[at] ^ (1 << int(random.random() * 8))]) + data[at + 1 :]


def _byte(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = _at(random, data)
    return data[:at] + bytes([int(random.random() * 256)]) + data[at + 1 :]


def _number(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at, number = _at(random, data), NUMBERS[int(random.random() * len(NUMBERS))]
    return data[:at] + number + data[at + len(number) :]


def _word(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at, word = _at(random, data), words[int(random.random() * len(words))]
    return data[:at] + word + data[at + (len(word) if random.random() < 0.3 else 0) :]


def _cut(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    return data[: _at(random, data)]


def _remove(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(random, data)
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(random, data)
    times = 2 if random.random() < 0.9 else 2 ** int(random.random() * 12)
    piece = data[start:end]
    return data[:end] + (piece * times)[: MAX_BYTES // 4] + data[end:]


def _splice(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    other = others[int(random.random() * len(others))]
    start, end = _span(random, other)
    at = _at(random, data)
    if random.random() < 0.3:
        return data[:at] + other[start:]
    return data[:at] + other[start:end] + data[at + (end - start if random.random() < 0.5 else 0) :]


_OPERATIONS = (_flip, _byte, _number, _word, _cut, _remove, _repeat, _splice)
