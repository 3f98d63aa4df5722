"""Mutations of MessagePack that know where its items begin and end, so that most results are still MessagePack."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import msgspec

from fuzz.mutate import mutate

_pack = msgspec.msgpack.encode


@dataclass(frozen=True, slots=True)
class Item:
    """An item's bytes from `start` to `end`; those of its head, type and length, end at `body`."""

    start: int
    body: int
    end: int


ITEMS: tuple[bytes, ...] = (
    *map(_pack, (None, True, False, 0, 1, -1, 127, 128, 255, 256, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63)),
    *map(_pack, (2**64 - 1, -(2**31), -(2**63), 0.0, 0.5, -0.0, 1e308, float("nan"), float("inf"), -float("inf"))),
    *map(
        _pack,
        ("", "a", "talk/0", "a~2", "#" + "ab" * 32, "../x", "@x/1", "ü", "none", "x" * 129, "x" * 257, "y" * 5000),
    ),
    *map(
        _pack, (b"", b"\0" * 16, b"\xff" * 15, b"z" * 300, [], [[]], [1] * 20, {}, {"a": {"a": {}}}, {"code": "busy"})
    ),
    b"\xca\x7f\xc0\x00\x00",  # a NaN of 32 bits
    b"\xa3\xff\xfe\xfd",  # a text that is no UTF-8
    b"\xa3\xed\xa0\x80",  # a lone surrogate
    b"\xc1",  # never used
    b"\xd6\xff\x00\x00\x00\x00",  # a time of 32 bits
    b"\xc7\x0c\xff" + b"\xff" * 12,  # a time that never was
    b"\xd4\x05a",  # an extension of nobody
    b"\xc9\xff\xff\xff\xff\x05",  # one of 4 GiB
    b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
    b"\xdf\xff\xff\xff\xff",  # a map of as many
    b"\xdb\xff\xff\xff\xff",  # a text of 4 GiB
    b"\xc6\x7f\xff\xff\xff",  # bytes of 2 GiB
    b"\xdd\x00\x00\xff\xff" * 30,  # arrays within arrays, each of them long
    b"\x91" * 200 + b"\xc0",
    b"\x81\xa1a" * 200 + b"\xc0",
    b"\x91" * 20_000 + b"\xc0",
    b"\x81\x91\x80\x01",  # a key that is an array with a map in it
    b"\x82\xa1a\x01\xa1a\x02",  # a key twice
)
"""Items at the edges of their types, and some that are none."""

_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2}
_FIXED |= {0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17}
_SIZED = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_SIZED |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


@lru_cache(maxsize=4096)
def items_of(data: bytes) -> tuple[Item, ...]:
    """The items in order of their beginnings, containers before what they hold; as far as the bytes are MessagePack."""
    found: list[Item] = []
    with contextlib.suppress(IndexError, RecursionError):
        _scan(data, 0, found, 0)
    return tuple(found)


def _scan(data: bytes, at: int, found: list[Item], depth: int) -> int:
    """Note the item at `at` and those within it; where it ends."""
    first = data[at]
    if depth > 50 or len(found) > 2000:
        raise IndexError
    count = 0
    if first <= 0x7F or first >= 0xE0:
        body = end = at + 1
    elif first <= 0x9F:
        body = end = at + 1
        count = (first & 15) * (2 if first <= 0x8F else 1)
    elif first <= 0xBF:
        body, end = at + 1, at + 1 + (first & 31)
    elif first in _FIXED:
        body, end = at + 1, at + 1 + _FIXED[first]
    elif first in _SIZED:
        width, extra = _SIZED[first]
        body = at + 1 + width + extra
        end = body + int.from_bytes(data[at + 1 : at + 1 + width], "big")
    else:
        width, each = _CONTAINERS.get(first, (0, 0))
        body = end = at + 1 + width
        count = each * int.from_bytes(data[at + 1 : body], "big")
    if end > len(data):
        raise IndexError
    place = len(found)
    found.append(Item(at, body, end))
    for _ in range(count):
        end = _scan(data, end, found, depth + 1)
    found[place] = Item(at, body, end)
    return end


def mutate_packed(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Another MessagePack, or something close to it."""
    draw = random.random
    items = items_of(data)
    if not items or draw() < 0.15:
        return mutate(random, data, others)
    item = items[int(draw() * len(items))]
    start, body, end = item.start, item.body, item.end
    luck = draw()
    if luck < 0.45:
        new = ITEMS[int(draw() * len(ITEMS))]
    elif luck < 0.6:
        other = others[int(draw() * len(others))]
        theirs = items_of(other)
        if not theirs:
            return mutate(random, data, others)
        donor = theirs[int(draw() * len(theirs))]
        new = other[donor.start : donor.end]
    elif luck < 0.68:
        new = b""
    elif luck < 0.75:
        new = data[start:end] * 2
    elif luck < 0.85:
        new = _head(random, data[start]) + data[body:end]
    elif luck < 0.9:
        depth = 1 if draw() < 0.7 else 2 ** int(draw() * 12)
        new = (b"\x91" if draw() < 0.5 else b"\x81\xa1k") * depth + data[start:end]
    else:
        return mutate(random, data[start:end], others).join((data[:start], data[end:]))
    return data[:start] + new + data[end:]


def _head(random: Random, first: int) -> bytes:
    """A head of the same kind of item with another length."""
    length = (0, 1, 2, 15, 16, 31, 255, 256, 65535, 65536, 2**24, 2**31, 2**32 - 1)[int(random.random() * 13)]
    for low, high, codes in ((0x80, 0x8F, (0xDE, 0xDF)), (0x90, 0x9F, (0xDC, 0xDD)), (0xA0, 0xBF, (0xDA, 0xDB))):
        if low <= first <= high or first in codes:
            wide = random.random() < 0.5
            return bytes([codes[wide]]) + struct.pack(">I", length)[0 if wide else 2 :]
    if 0xC4 <= first <= 0xC9:
        return b"\xc6" + struct.pack(">I", length)
    return bytes([0x80 + int(random.random() * 128)])
