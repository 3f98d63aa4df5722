"""What each stage optimises. All work on the log probability of whole answers, in nats.

cross entropy   the mean over answer tokens of -log p
dpo             Rafailov et al. 2023 (arXiv 2305.18290), equation 7: the chosen answer over the rejected one,
                against a reference that stays as it was
grpo            Shao et al. 2024 (arXiv 2402.03300), equation 3: answers of a group against the group's mean, with
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
    """The mean over all answer tokens of the batch."""
    return -(token_logps(logits, batch.targets) * batch.weights).sum() / batch.weights.sum()


def answer_logps(logits: Tensor, batch: Batch) -> Tensor:
    """log p of each answer as a whole [B]."""
    return (token_logps(logits, batch.targets) * batch.weights).sum(dim=1)


@dataclass(frozen=True, slots=True)
class Preference:
    """What a batch of pairs gave: the loss, how often the chosen one was the likelier, and by how much [nats]."""

    loss: Tensor
    accuracy: float
    margin: float


def dpo(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor, beta: float
) -> Preference:
    """log p of answers [B], those of the reference without gradient -> -log sigmoid(beta * margin), its mean."""
    margin = (chosen - reference_chosen) - (rejected - reference_rejected)
    loss = -F.logsigmoid(beta * margin).mean()
    return Preference(loss, float((margin > 0).float().mean()), float(margin.detach().mean()))


def advantages(rewards: Tensor) -> Tensor:
    """rewards [groups, group] -> how much better each answer is than its group, in standard deviations; 0 where all
    are alike."""
    spread = rewards.std(dim=1, correction=0, keepdim=True)
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return torch.where(spread > 1e-6, centred / spread.clamp_min(1e-6), torch.zeros_like(centred))


def clipped(logps: Tensor, old: Tensor, advantage: Tensor, weights: Tensor, clip: float) -> Tensor:
    """The clipped objective of each token, as a loss.

    logps, old [B,T]: log p of the tokens now and when they were sampled; advantage [B,T] or [B,1]; weights [B,T]: 1
    for a token of the answer. The mean over tokens of each answer, then over answers.
    """
    ratio = (logps - old).exp()
    least = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    return -_by_answer(least, weights)


def divergence(logps: Tensor, reference: Tensor, weights: Tensor) -> Tensor:
    """KL of the policy from the reference, estimated without bias and never negative: r - log r - 1, r = ref/policy."""
    gap = reference - logps
    return _by_answer(gap.exp() - gap - 1, weights)


def grpo(
    logps: Tensor, old: Tensor, reference: Tensor, advantage: Tensor, weights: Tensor, *, clip: float, beta: float
) -> Tensor:
    """logps, old, reference, weights [B,T], advantage [B] -> the loss."""
    return clipped(logps, old, advantage.unsqueeze(1), weights, clip) + beta * divergence(logps, reference, weights)


def _by_answer(values: Tensor, weights: Tensor) -> Tensor:
    return ((values * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1)).mean()
