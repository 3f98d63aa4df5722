"""Turns logits over the slots into read weights: how much a token reads from each slot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models.asm.errors import InputError
from models.asm.flags import Flags, RoutingOverride

TINY = 1e-8


def renormalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True).clamp_min(TINY)


def masked(weights: Tensor, drop: Tensor, *, renormalise: bool) -> Tensor:
    """Weights [B,H,T,K] with the slots of `drop` (broadcast to them) set to zero."""
    kept = weights.masked_fill(drop, 0.0)
    return renormalised(kept) if renormalise else kept


def with_noise(logits: Tensor, flags: Flags) -> Tensor:
    if flags.routing_noise is None:
        return logits
    if flags.routing_noise == "gaussian":
        noise = torch.randn_like(logits)
    else:
        noise = -torch.empty_like(logits).exponential_().log()
    return logits + flags.routing_noise_scale * noise


def read_weights(
    logits: Tensor,
    key: Tensor,
    content: Tensor,
    temperature: float,
    flags: Flags,
    override: RoutingOverride | None,
    context: Mapping[str, Any],
) -> Tensor:
    """The read weights. All tensors are [B,H,T,K].

    `override` takes precedence over the routing mode. Its weights are normalised to sum to 1.
    """
    if override is not None:
        if isinstance(override, Tensor):
            given = override
        else:
            given = override(0, logits.shape[2], logits, key, content, context)
        given = _fitting(given, logits, "routing_override")
        return renormalised(given.nan_to_num(nan=0.0).clamp_min(0.0))
    if flags.routing_mode == "external":
        assert flags.read_weights_override is not None
        return renormalised(_fitting(flags.read_weights_override, logits, "read_weights_override"))
    logits = logits / max(1e-6, temperature)
    if flags.routing_mode == "top1":
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    if flags.routing_mode == "topk":
        best = logits.topk(min(flags.routing_topk, logits.shape[-1]), dim=-1).indices
        outside = torch.ones_like(logits, dtype=torch.bool).scatter(-1, best, value=False)
        logits = logits.masked_fill(outside, -torch.inf)
    return logits.softmax(dim=-1)


def _fitting(weights: Tensor, logits: Tensor, name: str) -> Tensor:
    if weights.shape != logits.shape:
        raise InputError(f"{name} should have shape {list(logits.shape)} (B, H, T, K), found {list(weights.shape)}")
    return weights.to(logits)
