"""The objective of each stage. All use log probabilities in nats.

cross entropy   the mean over answer tokens of -log p
dpo             Rafailov et al. 2023 (arXiv 2305.18290), equation 7: prefers the chosen answer to the rejected one,
                relative to a fixed reference
grpo            Shao et al. 2024 (arXiv 2402.03300), equation 3: answers of a group relative to the group's mean, with
                the unbiased estimate of the divergence from the reference (equation 4)
ppo             Schulman et al. 2017 (arXiv 1707.06347), equation 7: the clipped ratio of each token
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.packing import Batch


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [B,T,V], targets [B,T] -> log p of each target [B,T], in nats."""
    return -F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """The mean cross entropy over all answer tokens of the batch."""
    return -(token_logps(logits, batch.targets) * batch.weights).sum() / batch.weights.sum()


def answer_logps(logits: Tensor, batch: Batch) -> Tensor:
    """log p of each whole answer [B]."""
    return (token_logps(logits, batch.targets) * batch.weights).sum(dim=1)


@dataclass(frozen=True, slots=True)
class Preference:
    """The result of a batch of pairs: the loss, how often the chosen answer gained on the rejected one, and by how much
    (nats)."""

    loss: Tensor
    accuracy: float
    margin: float


def dpo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Preference:
    """log p of answers [B], those of the reference without gradient -> the mean of -log sigmoid(beta * margin)."""
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    loss = -F.logsigmoid(beta * margin).mean()
    return Preference(loss, float((margin > 0).float().mean()), float(margin.detach().mean()))


def advantages(rewards: Tensor) -> Tensor:
    """rewards [groups, group] -> how much better each answer is than its group's mean, in standard deviations.

    All are 0 if the rewards of a group are equal.
    """
    spread = rewards.std(dim=1, correction=0, keepdim=True)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return torch.where(spread > 1e-6, centred / spread.clamp_min(1e-6), torch.zeros_like(centred))


def clipped(logps: Tensor, old: Tensor, advantage: Tensor, weights: Tensor, clip: float) -> Tensor:
    """The clipped objective, as a loss: its mean over the tokens of each answer, then over answers.

    logps, old [B,T]: log p of the tokens now and when they were sampled; advantage [B,T] or [B,1]; weights [B,T]: 1 for
    a token of the answer.
    """
    ratio = (logps - old).exp()
    least = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -_by_answer(least, weights)


def divergence(logps: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """An unbiased, never negative estimate of the KL from policy to reference: r - log r - 1, r = reference/policy."""
    gap = reference - logps
    return _by_answer(gap.exp() - gap - 1, weights)


def grpo(
    logps: Tensor, old: Tensor, reference: Tensor, advantage: Tensor, weights: Tensor, *, clip: float, beta: float
) -> Tensor:
    """The loss of grpo, from logps, old, reference, weights [B,T] and advantage [B]."""
    return clipped(logps, old, advantage.unsqueeze(1), weights, clip) + beta * divergence(logps, reference, weights)


def _by_answer(values: Tensor, weights: Tensor) -> Tensor:
    return ((values * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)).mean()
