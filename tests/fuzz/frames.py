"""Multipart messages as one input: each frame with its length before it; and mutations of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from fuzz.mutate import mutate
from fuzz.packed import mutate_packed
from ssmprov import wire

_KINDS = tuple(wire.KINDS)
_ODD_KINDS = (
    b"",
    b"S",
    b"SSP1",
    b"SSP2REQUEST",
    b"SSP1NOTHING",
    b"SSP1request",
    b"SSP1REQUEST\0",
    b"SSP1" + b"A" * 300,
)
_BIG = {size: bytes(size) for edge in (wire.MAX_HEADER, wire.MAX_PAYLOAD) for size in (edge - 1, edge, edge + 1)}
_RARELY = 0.0005
"""How often a frame is brought to the edge of what it may weigh: such inputs are slow to make."""


def join(frames: Iterable[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)


def split(data: bytes) -> list[bytes]:
    """The frames; a length that lies takes what there is."""
    found, at, size = [], 0, len(data)
    while at < size:
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at + 4 : end])
        at = end
    return found


def mutate_message(random: Random, frames: list[bytes], others: Sequence[list[bytes]]) -> list[bytes]:
    """A message with one to three faults, most of them in its header."""
    frames = list(frames)
    draw = random.random
    while True:
        luck = draw()
        if luck < 0.72 and len(frames) > 1:
            headers = [other[1] for other in _some(random, others) if len(other) > 1] or [frames[1]]
            frames[1] = mutate_packed(random, frames[1], headers)
        elif luck < 0.76 and frames:
            kinds = _KINDS if draw() < 0.8 else _ODD_KINDS
            frames[0] = kinds[int(draw() * len(kinds))]
        elif luck < 0.86 and len(frames) > 2:
            at = 2 + int(draw() * (len(frames) - 2))
            frames[at] = mutate_packed(random, frames[at], [frames[1]])
        elif luck < 0.88 and len(frames) > 1:
            del frames[-1 - int(draw() * draw() * len(frames))]
        elif luck < 0.92:
            other = others[int(draw() * len(others))]
            frames.insert(1 + int(draw() * len(frames)), other[int(draw() * len(other))] if other else b"")
        elif luck < 0.93:
            frames += [b"x"] * (1 + int(draw() * 12))
        elif luck < 0.97 and frames:
            at = int(draw() * len(frames))
            frames[at] = mutate(random, frames[at], frames)
        elif draw() < _RARELY * 25:
            big = _BIG[random.choice(tuple(_BIG))]
            frames.insert(min(len(frames), 1 + int(draw() * 3)), big)
        if draw() < 0.65:
            return frames


def _some(random: Random, others: Sequence[list[bytes]]) -> list[list[bytes]]:
    return [others[int(random.random() * len(others))] for _ in range(2)]


def mutate_frames(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """As `mutate_message`, of joined frames."""
    donors = [split(others[int(random.random() * len(others))]) for _ in range(2)]
    return join(mutate_message(random, split(data), donors))
