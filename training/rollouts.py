"""Samples answers from a policy and scores them. Seed and batch number determine them, so they can be sampled again.

A batch of answers is used for `whole` steps. `old`, the log p of the answers when they were sampled, is computed in the
same way as in the loss, so the ratio in the first step is exactly 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from training.fit import FitError
from training.methods import drawn_rows
from training.objectives import token_logps
from training.packing import Batch, Sample, tensors
from training.policy import Policy
from training.sampling import Answer, Sampling, sample

Reward = Callable[[int, Sequence[int], bool], float]
"""The prompt's number, the tokens of the answer without its end, whether it ended -> its reward, a finite number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What to ask. Each batch has `group` answers to each of `prompts_per_step` prompts, and is used for `whole` steps.

    Training uses the distribution that answers are sampled from: it also divides logits by the sampling temperature.
    """

    prompts: Sequence[Sequence[int]]
    reward: Reward
    sampling: Sampling
    group: int = 8
    prompts_per_step: int = 4
    whole: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.prompts:
            raise FitError("there are no prompts to answer")
        if min(self.group, self.prompts_per_step, self.whole) < 1:
            raise FitError("group, prompts_per_step and whole must each be at least 1")
        if self.sampling.temperature <= 0:
            raise FitError("the temperature must be more than 0: otherwise all answers to a prompt are the same")


@dataclass(slots=True, kw_only=True)
class Rollout:
    """Answers to learn from. Answers to the same prompt are neighbours. B = prompts x group.

    `batch` [B,T]; `rewards` [prompts, group]; `old` and `reference` [B,T]: log p of the tokens in the policy that gave
    them and in the reference (None: no reference); `advantage` in the shape that the objective uses.
    """

    batch: Batch
    answers: list[Answer]
    rewards: Tensor
    reference: Tensor | None
    old: Tensor
    advantage: Tensor


class Reference:
    """A frozen copy of a policy. It shares all tensors that are not trained."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._tensors = {name: tensor.detach().clone() for name, tensor in policy.tensors.items()}

    @torch.no_grad()
    def logps(self, batch: Batch, temperature: float) -> Tensor:
        """log p of the targets [B,T]."""
        now = {name: tensor.data for name, tensor in self._policy.tensors.items()}
        try:
            for name, tensor in self._policy.tensors.items():
                tensor.data = self._tensors[name]
            return logps_of(self._policy, batch, temperature)
        finally:
            for name, tensor in self._policy.tensors.items():
                tensor.data = now[name]


def logps_of(policy: Policy, batch: Batch, temperature: float) -> Tensor:
    """log p of the targets [B,T] in the policy at a temperature."""
    return token_logps(policy.logits(batch.tokens) / temperature, batch.targets)


def roll_out(policy: Policy, asking: Asking, number: int) -> tuple[Batch, list[Answer], Tensor]:
    """Batch `number` of answers, and their rewards [prompts, group]. Raises FitError if a reward is not finite."""
    which = drawn_rows(len(asking.prompts), asking.prompts_per_step, asking.seed, number)
    asked = [row for row in which for _ in range(asking.group)]
    seed = Random(f"{asking.seed} answers {number}").getrandbits(63)
    answers = sample(policy, [asking.prompts[row] for row in asked], asking.sampling, seed)
    rewards = []
    for row, answer in zip(asked, answers, strict=True):
        rewards.append(float(asking.reward(row, answer.body, answer.ended)))
        if not math.isfinite(rewards[-1]):
            raise FitError(f"the reward of an answer to prompt {row} is {rewards[-1]}, but it must be a finite number")
    rows = [
        Sample([*asking.prompts[row], *answer.tokens], len(asking.prompts[row]), row)
        for row, answer in zip(asked, answers, strict=True)
    ]
    return tensors(rows), answers, torch.tensor(rewards).view(len(which), asking.group)
