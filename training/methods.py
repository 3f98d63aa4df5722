"""Losses for `fit`: on given answers, and on pairs of a better and a worse answer. `objectives` has the formulas.

`reinforcement` has the losses on answers that the policy itself gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor

from training.fit import FitError, Taken
from training.objectives import answer_logps, cross_entropy, dpo, token_logps
from training.packing import Packed, Sample, batch_at, tensors
from training.policy import Policy

Trace = dict[str, list[float]]
"""What each step measured besides its loss, by name."""


class Supervised:
    """Cross entropy on the answers of packed rows, for stage_a, stage_b and sft."""

    def __init__(self, policy: Policy, packed: Packed, seed: int) -> None:
        self._policy, self._packed, self._seed = policy, packed, seed

    def __call__(self, step: int) -> Taken:
        batch = batch_at(self._packed, self._seed, step)
        loss = cross_entropy(self._policy.logits(batch.tokens), batch)
        return Taken(loss, float(loss.detach()))


def validation(policy: Policy, packed: Packed) -> Callable[[], float]:
    """A check for `fit`: the mean cross entropy of all answer tokens of the rows, in nats."""

    @torch.no_grad()
    def measured() -> float:
        total = count = 0.0
        for samples in packed.batches:
            batch = tensors(samples)
            logps = token_logps(policy.logits(batch.tokens), batch.targets) * batch.weights
            total, count = total - float(logps.double().sum()), count + float(batch.weights.sum())
        return total / count

    return measured


@dataclass(frozen=True, slots=True)
class Pair:
    """The chosen and the rejected answer to a prompt, as tokens, including their ends."""

    prompt: Sequence[int]
    chosen: Sequence[int]
    rejected: Sequence[int]
    row: int = 0

    def samples(self) -> tuple[Sample, Sample]:
        chosen, rejected = (
            Sample([*self.prompt, *answer], len(self.prompt), self.row) for answer in (self.chosen, self.rejected)
        )
        return chosen, rejected


class Dpo:
    """Direct preference optimisation, with `pairs_per_step` pairs in each step.

    The reference is the policy at construction time; its log probabilities are computed once, at that time. `trace`
    holds `accuracy` (share of pairs whose chosen answer gained on the rejected one) and `margin` (by how much, nats).
    """

    def __init__(
        self, policy: Policy, pairs: Sequence[Pair], *, beta: float = 0.1, pairs_per_step: int = 8, seed: int = 0
    ) -> None:
        """Raises FitError if there are no pairs, and ValueError if a pair has no prompt or an empty answer."""
        if not pairs:
            raise FitError("there are no pairs to learn from: dpo needs at least one")
        if beta <= 0 or pairs_per_step < 1:
            raise FitError(f"beta must be more than 0 and pairs_per_step at least 1, not {beta} and {pairs_per_step}")
        self._policy, self._beta, self._seed = policy, beta, seed
        self._pairs = [pair.samples() for pair in pairs]
        self._count = min(pairs_per_step, len(pairs))
        self.trace: Trace = {"accuracy": [], "margin": []}
        with torch.no_grad():
            parts = range(0, len(pairs), self._count)
            self._reference = torch.cat([self._logps(range(len(pairs))[at : at + self._count]) for at in parts], dim=1)

    def __call__(self, step: int) -> Taken:
        rows = drawn_rows(len(self._pairs), self._count, self._seed, step)
        chosen, rejected = self._logps(rows)
        found = dpo(chosen, rejected, self._reference[0, rows], self._reference[1, rows], self._beta)
        self.trace["accuracy"].append(found.accuracy)
        self.trace["margin"].append(found.margin)
        return Taken(found.loss, float(found.loss.detach()))

    def state(self) -> dict[str, Any]:
        return {"trace": self.trace}

    def restore(self, saved: dict[str, Any]) -> None:
        self.trace = saved["trace"]

    def _logps(self, rows: Sequence[int]) -> Tensor:
        """log p of the chosen and of the rejected answers of some pairs [2, pairs], computed in one call."""
        chosen, rejected = zip(*(self._pairs[row] for row in rows), strict=True)
        batch = tensors([*chosen, *rejected])
        return answer_logps(self._policy.logits(batch.tokens), batch).view(2, -1)


def drawn_rows(rows: int, count: int, seed: int, number: int) -> list[int]:
    """Draw `number` of `count` rows. Every epoch reads all rows, each time in another order."""
    found, orders = [], dict[int, list[int]]()
    for place in range(number * count, (number + 1) * count):
        epoch = place // rows
        if epoch not in orders:
            orders[epoch] = list(range(rows))
            Random(f"{seed} epoch {epoch}").shuffle(orders[epoch])
        found.append(orders[epoch][place % rows])
    return found
