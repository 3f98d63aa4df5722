"""Whole rows side by side: each in a lane of its own, begun from the zero state, padded at the right and never split.

A recurrent state that goes on from one row to the next would let rows see each other. Reading rows of about one
length together costs little padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import torch
from torch import Tensor

PAD = 0


@dataclass(frozen=True, slots=True)
class Sample:
    """A row as tokens, the end of the answer among them; from `answer_at` on they are the answer."""

    tokens: Sequence[int]
    answer_at: int
    row: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.answer_at < len(self.tokens):
            raise ValueError(f"row {self.row}: a sample has a prompt and an answer, of a token each at least")


@dataclass(slots=True)
class Batch:
    """Rows to be read together from the zero state.

    `tokens` [B,T] int64 padded with `PAD`, `targets` [B,T] each the token after, `weights` [B,T] fp32: 1 where the
    target is a token of the answer, else 0. `lengths` [B] counts the tokens of each row that have a target.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: Tensor
    rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Packed:
    """Batches as lists of samples, the rows that are longer than `budget`, and how full the batches are."""

    batches: list[list[Sample]]
    oversize: list[int]
    real_tokens: int
    padded_tokens: int

    @property
    def fill(self) -> float:
        return self.real_tokens / self.padded_tokens if self.padded_tokens else 0.0


def pack(samples: Sequence[Sample], budget: int, longest: int) -> Packed:
    """Batches of at most `budget` padded tokens, of rows of at most `longest` tokens, like lengths together.

    Raises ValueError where no row fits.
    """
    fitting = sorted((s for s in samples if len(s.tokens) <= min(longest, budget)), key=lambda s: len(s.tokens))
    oversize = [sample.row for sample in samples if len(sample.tokens) > min(longest, budget)]
    if not fitting:
        raise ValueError(f"none of {len(samples)} rows fits into {min(longest, budget)} tokens")
    batches: list[list[Sample]] = []
    for sample in fitting:
        if batches and (len(batches[-1]) + 1) * len(sample.tokens) <= budget:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    padded = sum(len(batch) * len(batch[-1].tokens) for batch in batches)
    return Packed(batches, oversize, sum(len(sample.tokens) for sample in fitting), padded)


def tensors(samples: Sequence[Sample]) -> Batch:
    """A batch to read."""
    width = max(len(sample.tokens) for sample in samples) - 1
    tokens = torch.full((len(samples), width), PAD, dtype=torch.int64)
    targets = torch.full((len(samples), width), PAD, dtype=torch.int64)
    weights = torch.zeros(len(samples), width)
    for row, sample in enumerate(samples):
        ids = torch.tensor(sample.tokens)
        length = len(ids) - 1
        tokens[row, :length], targets[row, :length] = ids[:-1], ids[1:]
        weights[row, sample.answer_at - 1 : length] = 1.0
    lengths = torch.tensor([len(sample.tokens) - 1 for sample in samples])
    return Batch(tokens, targets, weights, lengths, [sample.row for sample in samples])


def batch_at(packed: Packed, seed: int, step: int) -> Batch:
    """The batch of a step: every epoch reads all of them, in an order of its own, the same for a seed."""
    count = len(packed.batches)
    order = list(range(count))
    Random(f"{seed} epoch {step // count}").shuffle(order)
    return tensors(packed.batches[order[step % count]])


def reply_budget(samples: Sequence[Sample], context: int | None = None) -> int:
    """Tokens that an answer may take: 1.15 times the 99th percentile of the answers, 64 at least."""
    lengths = sorted(len(sample.tokens) - sample.answer_at for sample in samples)
    found = math.ceil(1.15 * lengths[math.ceil(0.99 * len(lengths)) - 1])
    found = max(64, found)
    return found if context is None else max(1, min(found, context - 16))
