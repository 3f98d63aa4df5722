"""Losses on answers that the policy gives itself, rewarded by whatever judges them: grpo and ppo.

`Fit.whole` has to be `Asking.whole`. The curve shows minus the mean reward.
`trace` holds for each step, of its batch: `reward`, `ended` (share of answers that ended), `tokens` (of an answer), and
of the step itself: `divergence` (from the reference, nats a token; 0 where `beta` is 0, for then there is none) and
`clipped` (share of tokens beyond the clip).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from training.fit import FitError, Taken
from training.methods import Trace
from training.objectives import advantages, clipped, divergence
from training.policy import Policy
from training.rollouts import Asking, Reference, Rollout, logps_of, roll_out

MOMENTUM = 0.9
"""Of what a running baseline was, what remains after a batch."""
LEAST_SPREAD = 1e-3
"""Returns that lie closer together than this are alike."""


class _OnItsOwnAnswers(ABC):
    """What both have in common: the batch of a step, the clipped loss, and what is told of it."""

    def __init__(self, policy: Policy, asking: Asking, clip: float, beta: float) -> None:
        """The reference is the policy as it is now; without a `beta` it is not needed. Raises FitError."""
        if not 0 < clip < 1 or beta < 0:
            raise FitError(f"clip must lie between 0 and 1 and beta be 0 or more, not {clip} and {beta}")
        self._policy, self._asking, self._clip, self._beta = policy, asking, clip, beta
        self._reference = Reference(policy) if beta else None
        self._number = -1
        self._rollout: Rollout | None = None
        self.trace: Trace = {name: [] for name in ("reward", "ended", "tokens", "divergence", "clipped")}

    def __call__(self, step: int) -> Taken:
        number, place = divmod(step, self._asking.whole)
        rollout, logps = self._rollout, None
        if number != self._number or rollout is None:
            if place:
                raise FitError(f"step {step} is not the first of {self._asking.whole} that learn from the same answers")
            rollout, logps = self._asked(number)
        if logps is None:
            logps = logps_of(self._policy, rollout.batch, self._asking.sampling.temperature)
        loss = self._loss(rollout, logps)
        self._tell(rollout, logps.detach())
        return Taken(loss, -float(rollout.rewards.mean()))

    def state(self) -> dict[str, Any]:
        return {"trace": self.trace}

    def restore(self, saved: dict[str, Any]) -> None:
        self.trace = saved["trace"]
        self._rollout = None

    def _asked(self, number: int) -> tuple[Rollout, Tensor]:
        """A new batch, and log p of its tokens with their gradient."""
        temperature = self._asking.sampling.temperature
        batch, answers, rewards = roll_out(self._policy, self._asking, number)
        reference = None if self._reference is None else self._reference.logps(batch, temperature)
        logps = logps_of(self._policy, batch, temperature)
        old = logps.detach()
        rollout = Rollout(
            batch=batch, answers=answers, rewards=rewards, reference=reference, old=old, advantage=torch.zeros_like(old)
        )
        rollout.advantage = self._advantage(rollout)
        self._number, self._rollout = number, rollout
        return rollout, logps

    @abstractmethod
    def _advantage(self, rollout: Rollout) -> Tensor:
        """[B,T] or [B,1]."""

    def _loss(self, rollout: Rollout, logps: Tensor) -> Tensor:
        return clipped(logps, rollout.old, rollout.advantage, rollout.batch.weights, self._clip)

    def _tell(self, rollout: Rollout, logps: Tensor) -> None:
        weights, answers = rollout.batch.weights, rollout.answers
        ratio = (logps - rollout.old).exp()
        beyond = ratio * rollout.advantage > ratio.clamp(1 - self._clip, 1 + self._clip) * rollout.advantage
        far = 0.0 if rollout.reference is None else float(divergence(logps, rollout.reference, weights))
        told = {
            "reward": float(rollout.rewards.mean()),
            "ended": sum(answer.ended for answer in answers) / len(answers),
            "tokens": sum(len(answer.tokens) for answer in answers) / len(answers),
            "divergence": far,
            "clipped": float((beyond * weights).sum() / weights.sum()),
        }
        for name, value in told.items():
            self.trace[name].append(value)


class Grpo(_OnItsOwnAnswers):
    """Group relative policy optimisation: an answer's advantage is its reward among those of the same prompt.

    `beta` weighs the divergence from the reference in the loss.
    """

    def __init__(self, policy: Policy, asking: Asking, *, clip: float = 0.2, beta: float = 0.04) -> None:
        super().__init__(policy, asking, clip, beta)
        if asking.group < 2:
            raise FitError("grpo compares answers to one prompt: group must be at least 2")

    def _advantage(self, rollout: Rollout) -> Tensor:
        return advantages(rollout.rewards).view(-1, 1)

    def _loss(self, rollout: Rollout, logps: Tensor) -> Tensor:
        loss = super()._loss(rollout, logps)
        if rollout.reference is None:
            return loss
        return loss + self._beta * divergence(logps, rollout.reference, rollout.batch.weights)


class Ppo(_OnItsOwnAnswers):
    """Proximal policy optimisation with the clipped ratio of each token. No critic is learnt.

    What follows a token, its return, is the answer's reward less `beta` times log(policy / reference) of this token and
    each later one. Its advantage is the return less a running mean over all tokens of earlier batches, which knows
    neither prompt nor place, over their running spread. The first batch is its own baseline.
    """

    def __init__(self, policy: Policy, asking: Asking, *, clip: float = 0.2, beta: float = 0.04) -> None:
        super().__init__(policy, asking, clip, beta)
        self._baseline: float | None = None
        self._variance = 0.0
        self.trace["baseline"] = []

    def state(self) -> dict[str, Any]:
        return super().state() | {"baseline": self._baseline, "variance": self._variance}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self._baseline, self._variance = saved["baseline"], saved["variance"]

    def _advantage(self, rollout: Rollout) -> Tensor:
        weights = rollout.batch.weights
        returns = returns_of(rollout, self._beta)
        mean = float((returns * weights).sum() / weights.sum())
        baseline = mean if self._baseline is None else self._baseline
        centred = (returns - baseline) * weights
        variance = float(centred.square().sum() / weights.sum())
        if self._baseline is None:
            self._baseline, self._variance = mean, variance
        else:
            self._baseline = MOMENTUM * baseline + (1 - MOMENTUM) * mean
            self._variance = MOMENTUM * self._variance + (1 - MOMENTUM) * variance
        return centred / max(math.sqrt(self._variance), LEAST_SPREAD)

    def _tell(self, rollout: Rollout, logps: Tensor) -> None:
        super()._tell(rollout, logps)
        self.trace["baseline"].append(self._baseline or 0.0)


def returns_of(rollout: Rollout, beta: float) -> Tensor:
    """What follows each token of the answers [B,T]: its answer's reward, less what strays from the reference costs."""
    weights = rollout.batch.weights
    returns = rollout.rewards.view(-1, 1).expand_as(weights)
    if rollout.reference is not None:
        cost = beta * (rollout.old - rollout.reference) * weights
        returns = returns - cost.flip(1).cumsum(dim=1).flip(1)
    return returns * weights
