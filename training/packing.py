"""Packs rows into batches. A row has its own lane, starts from the zero state, is padded at the right and never split.

If a recurrent state continued from one row to the next, rows would influence each other. Batches of rows of similar
length need little padding. `stream` is the alternative for users who want that influence: a lane holds several rows,
and each is read after the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from random import Random

import torch
from torch import Tensor

PAD = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as tokens. Those from `answer_at` on are the answer, including its end."""

    tokens: Sequence[int]
    answer_at: int
    row: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.answer_at < len(self.tokens):
            raise ValueError(f"row {self.row}: a sample needs a prompt and an answer of at least one token each")

    @property
    def answers(self) -> list[tuple[int, int]]:
        """The ranges of the answers: first token, and the token after the last."""
        return [(self.answer_at, len(self.tokens))]

    @property
    def rows(self) -> list[int]:
        return [self.row]


@dataclass(frozen=True, slots=True)
class Lane:
    """Whole rows, one after another. The state is carried from each to the next."""

    samples: Sequence[Sample]

    @property
    def tokens(self) -> Sequence[int]:
        return list(chain.from_iterable(sample.tokens for sample in self.samples))

    @property
    def answers(self) -> list[tuple[int, int]]:
        ends = accumulate(len(sample.tokens) for sample in self.samples)
        found = zip(self.samples, ends, strict=True)
        return [(end - len(sample.tokens) + sample.answer_at, end) for sample, end in found]

    @property
    def rows(self) -> list[int]:
        return [sample.row for sample in self.samples]


@dataclass(slots=True, kw_only=True)
class Batch:
    """Lanes to read together, each from the start.

    `tokens` [B,T] int64 are padded with `PAD`; `targets` [B,T] are the next tokens; `weights` [B,T] fp32 are 1 if the
    target is a token of the answer, else 0. `lengths` [B] counts the tokens of each lane that have a target; `rows`
    are the numbers of all its rows.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches of lanes, the rows that were too long for a batch, and how full the batches are."""

    batches: Sequence[Sequence[Sample | Lane]]
    oversize: list[int]
    real_tokens: int
    padded_tokens: int

    @property
    def fill(self) -> float:
        return self.real_tokens / self.padded_tokens if self.padded_tokens else 0.0


def pack(samples: Sequence[Sample], budget: int, longest: int) -> Packed:
    """Packs rows of at most `longest` tokens, sorted by length, into batches of at most `budget` padded tokens.

    Raises ValueError if no row fits.
    """
    fitting, oversize = _fitting(samples, min(longest, budget))
    return _batched(sorted(fitting, key=lambda sample: len(sample.tokens)), oversize, budget)


def stream(samples: Sequence[Sample], budget: int, width: int, seed: int) -> Packed:
    """Fills lanes of at most `width` tokens with whole rows, and packs them into batches as `pack` does.

    The seed determines the order of the rows. Except for the first row of a lane, a row is learnt in the context of the
    rows before it. Raises ValueError if no row fits.
    """
    fitting, oversize = _fitting(samples, min(width, budget))
    Random(f"{seed} stream").shuffle(fitting)
    lanes: list[list[Sample]] = [[]]
    filled = 0
    for sample in fitting:
        if filled + len(sample.tokens) > min(width, budget):
            lanes.append([])
            filled = 0
        lanes[-1].append(sample)
        filled += len(sample.tokens)
    return _batched(sorted(map(Lane, lanes), key=lambda lane: len(lane.tokens)), oversize, budget)


def _fitting(samples: Sequence[Sample], longest: int) -> tuple[list[Sample], list[int]]:
    """The samples of at most `longest` tokens, and the row numbers of the others."""
    fitting = [sample for sample in samples if len(sample.tokens) <= longest]
    if not fitting:
        raise ValueError(f"none of the {len(samples)} rows fits into {longest} tokens")
    return fitting, [sample.row for sample in samples if len(sample.tokens) > longest]


def _batched(lanes: Sequence[Sample | Lane], oversize: list[int], budget: int) -> Packed:
    """Sorts lanes by length, and puts as many into each batch as the budget allows."""
    batches: list[list[Sample | Lane]] = []
    for lane in lanes:
        if batches and (len(batches[-1]) + 1) * len(lane.tokens) <= budget:
            batches[-1].append(lane)
        else:
            batches.append([lane])
    padded = sum(len(batch) * len(batch[-1].tokens) for batch in batches)
    return Packed(batches, oversize, sum(len(lane.tokens) for lane in lanes), padded)


def tensors(lanes: Sequence[Sample | Lane]) -> Batch:
    """The tensors of a batch."""
    width = max(len(lane.tokens) for lane in lanes) - 1
    tokens = torch.full((len(lanes), width), PAD, dtype=torch.int64)
    targets = torch.full((len(lanes), width), PAD, dtype=torch.int64)
    weights = torch.zeros(len(lanes), width)
    for row, lane in enumerate(lanes):
        ids = torch.tensor(lane.tokens)
        length = len(ids) - 1
        tokens[row, :length], targets[row, :length] = ids[:-1], ids[1:]
        for first, stop in lane.answers:
            weights[row, first - 1 : stop - 1] = 1.0
    lengths = torch.tensor([len(lane.tokens) - 1 for lane in lanes])
    return Batch(
        tokens=tokens,
        targets=targets,
        weights=weights,
        lengths=lengths,
        rows=list(chain.from_iterable(lane.rows for lane in lanes)),
    )


def batch_at(packed: Packed, seed: int, step: int) -> Batch:
    """The batch of a step. Every epoch reads all batches, each time in another order, which the seed determines."""
    count = len(packed.batches)
    order = list(range(count))
    Random(f"{seed} epoch {step // count}").shuffle(order)
    return tensors(packed.batches[order[step % count]])


def reply_budget(samples: Sequence[Sample], context: int | None = None) -> int:
    """How many tokens an answer may have: 1.15 times the 99th percentile of the answers, but at least 64."""
    lengths = sorted(len(sample.tokens) - sample.answer_at for sample in samples)
    found = math.ceil(1.15 * lengths[math.ceil(0.99 * len(lengths)) - 1])
    found = max(64, found)
    return found if context is None else max(1, min(found, context - 16))
