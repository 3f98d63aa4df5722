"""Hides slots from the reads of one layer, and measures how much that changes the next token's distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.asm.lm import ASMLanguageModel
from research.asm.probing.reading import Prompts, attention_of, look, next_tokens

COUNT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KnockOut:
    """The most and the least used slots of a layer, their share of its reads, and the mean KL (nats) without them."""

    layer: int
    most: list[int]
    least: list[int]
    most_share: float
    least_share: float
    most_kl: float
    least_kl: float


def knock_outs(model: ASMLanguageModel, prompts: Prompts) -> list[KnockOut]:
    """Masks up to 3 slots of a baseline model, in all tokens and heads of one layer. Does this for each layer in turn.

    Returns an empty list if the model has only one slot.
    """
    count = min(COUNT, model.config.num_slots // 2)
    if not count:
        return []
    infos, _ = look(model, prompts, 0)
    plain = next_tokens(model, prompts, whole=True)
    found = []
    for layer, info in enumerate(infos):
        used = usage(info["read_weights"], prompts.lengths)
        order: list[int] = used.argsort(descending=True, stable=True).tolist()
        most, least = order[:count], order[-count:]
        kl_most, kl_least = (
            float(divergence(plain, _without(model, prompts, layer, slots)).mean()) for slots in (most, least)
        )
        found.append(
            KnockOut(
                layer=layer,
                most=most,
                least=least,
                most_share=float(used[most].sum()),
                least_share=float(used[least].sum()),
                most_kl=kl_most,
                least_kl=kl_least,
            )
        )
    return found


def usage(weights: Tensor, lengths: Tensor) -> Tensor:
    """Read weights [B,H,T,K] -> the mean share [K] of each slot over heads and real tokens."""
    real = torch.arange(weights.shape[2], device=weights.device) < lengths.unsqueeze(1)  # (B, T)
    return weights.transpose(1, 2)[real].mean(dim=(0, 1))


def divergence(plain: Tensor, changed: Tensor) -> Tensor:
    """KL(plain || changed) of log probabilities [B,V], in nats [B]."""
    return (plain.exp() * (plain - changed)).sum(dim=-1).clamp_min(0.0)  # rounding may give a negative number


def _without(model: ASMLanguageModel, prompts: Prompts, layer: int, slots: list[int]) -> Tensor:
    attention = attention_of(model, layer)
    keep = torch.ones(attention.config.num_slots)
    keep[slots] = 0
    attention.slot_mask = keep
    try:
        return next_tokens(model, prompts, whole=True)
    finally:
        attention.slot_mask = None
