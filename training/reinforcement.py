"""Losses on answers that the policy itself gives and a reward function scores: grpo and ppo.

`Fit.whole` must equal `Asking.whole`. The curve shows minus the mean reward. For each step, `trace` holds `reward`,
`ended` (share of answers that ended) and `tokens` (mean length of an answer) of its batch, `divergence` (from the
reference, nats per token; 0 if `beta` is 0, since then there is no reference) and `clipped` (share of clipped tokens).
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
"""How much of the old running baseline is kept after a batch."""
LEAST_SPREAD = 1e-3
"""Returns that differ by less than this count as equal."""


class _OnItsOwnAnswers(ABC):
    """What both objectives share: the batch of a step, the clipped loss and the trace."""

    def __init__(self, policy: Policy, asking: Asking, clip: float, beta: float) -> None:
        """The reference is a copy of the current policy; with `beta` 0 there is none. Raises FitError."""
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
                raise FitError(
                    f"step {step} cannot start here: {self._asking.whole} steps share each batch of answers, and a "
                    "run can only continue from the first of them"
                )
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
        """A new batch, and log p of its tokens, with gradient."""
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
        """The advantage of each token [B,T], or of each answer [B,1]."""

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
    """Group relative policy optimisation: an answer's advantage is its reward relative to others of the same prompt.

    `beta` is the weight of the divergence from the reference in the loss.
    """

    def __init__(self, policy: Policy, asking: Asking, *, clip: float = 0.2, beta: float = 0.04) -> None:
        super().__init__(policy, asking, clip, beta)
        if asking.group < 2:
            raise FitError("grpo compares several answers to the same prompt: group must be at least 2")

    def _advantage(self, rollout: Rollout) -> Tensor:
        return advantages(rollout.rewards).view(-1, 1)

    def _loss(self, rollout: Rollout, logps: Tensor) -> Tensor:
        loss = super()._loss(rollout, logps)
        if rollout.reference is None:
            return loss
        return loss + self._beta * divergence(logps, rollout.reference, rollout.batch.weights)


class Ppo(_OnItsOwnAnswers):
    """Proximal policy optimisation with the clipped ratio of each token. It learns no critic.

    The return of a token is the answer's reward minus `beta` times the sum of log(policy / reference) over this token
    and all later ones. Its advantage is the return minus a running mean over all tokens of earlier batches, divided by
    their running spread. The running mean depends on neither prompt nor position. The first batch is its own baseline.
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
    """The return of each token [B,T]: its answer's reward minus the penalty for leaving the reference."""
    weights = rollout.batch.weights
    returns = rollout.rewards.view(-1, 1).expand_as(weights)
    if rollout.reference is not None:
        cost = beta * (rollout.old - rollout.reference) * weights
        returns = returns - cost.flip(1).cumsum(dim=1).flip(1)
    return returns * weights
