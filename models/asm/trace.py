"""What one layer computed in one call, and the dictionaries that the variants return from it.

The entries have the original's names and shapes: write logits [B,H,K,T], read logits and weights [B,H,T,K].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from models.asm.flags import Flags
from models.asm.positions import Span
from models.asm.slots import Slots

Info = dict[str, Any]


@dataclass(slots=True, kw_only=True)
class Trace:
    """Tensors [B,H,T,..]. `slot_weights` is None if the layer has no refinement."""

    span: Span
    write_logits: Tensor
    decay: Tensor
    slots: Slots
    key_logits: Tensor
    content_logits: Tensor
    read_logits: Tensor
    read_weights: Tensor
    slot_weights: Tensor | None
    strength: Tensor
    gamma: Tensor
    gate: Tensor

    def out1(self) -> Tensor:
        """The first read [B,H,T,d]."""
        return self.slots.mix(self.read_weights)

    def delta(self) -> Tensor | None:
        """The refinement's read before its gate [B,H,T,d]."""
        return None if self.slot_weights is None else self.slots.mix(self.slot_weights)

    def alibi_bias(self) -> Tensor:
        """The ALiBi bias: [1,H,1,T] if all rows are at the same position, else [B,H,1,T]."""
        counts = self.span.counts[:1] if self.span.aligned else self.span.counts
        return counts[:, None, None, :] * self.decay[:, None, None]

    def delta_norm(self) -> Tensor:
        """The mean length of the refinement's read, before its gate."""
        delta = self.delta()
        norms: Tensor = self.gamma.new_zeros(1) if delta is None else vector_norm(delta, dim=-1)
        return norms.mean()


def baseline_info(trace: Trace, flags: Flags, use_rope_slotspace: bool) -> Info:
    """The full dictionary that the baseline variant returns."""
    raw, bias = trace.write_logits.mT, trace.alibi_bias()  # (B, H, K, T)
    return {
        "write_logits_raw": raw,
        "write_logits": raw + bias,
        "read_weights": trace.read_weights,
        "read_logits": trace.read_logits,
        "read_logits_key": trace.key_logits,
        "read_logits_content": trace.content_logits,
        "slot_state_norm": trace.slots.norms().mT,
        "alibi_bias_applied": bias,
        "alibi_strength": trace.strength,
        "content_read_gamma": trace.gamma,
        "slotspace_gate": trace.gate,
        "slotspace_delta_norm": trace.delta_norm(),
        "use_rope_slotspace": use_rope_slotspace,
        "routing_mode": flags.routing_mode,
        "slot_mask_where": flags.slot_mask_where,
        "slot_mask_scope": flags.slot_mask_scope,
    }


def light_stats(trace: Trace, chunk: int | None) -> Info:
    """The scalars of the online variant.

    Entropy and top-1 frequency are means over write chunks, which all count the same. Padding is included.
    """
    groups = trace.span.groups(chunk)
    entropy = -(trace.read_weights * trace.read_weights.clamp_min(1e-8).log()).sum(dim=-1)
    best = trace.read_weights.argmax(dim=-1)
    slots = trace.read_weights.shape[-1]
    shares = [best[:, :, part].flatten().bincount(minlength=slots).max() / best[:, :, part].numel() for part in groups]
    return {
        "entropy_mean": torch.stack([entropy[:, :, part].mean() for part in groups]).mean(),
        "top1freq_mean": torch.stack(shares).mean(),
        "alibi_strength_mean": trace.strength,
        "content_read_gamma_mean": trace.gamma,
        "slotspace_gate_mean": trace.gate,
        "slotspace_delta_norm": trace.delta_norm(),
    }


def intervene_info(trace: Trace, flags: Flags, geometry: Mapping[str, Tensor]) -> Info:
    """Scalars, the geometry's means if requested, and the tensors that `info_level` and `info_cfg` select."""
    config = flags.info_cfg
    info: Info = {
        "alibi_strength": trace.strength,
        "content_read_gamma": trace.gamma,
        "slotspace_gate": trace.gate,
        "slotspace_delta_norm": trace.gate * trace.delta_norm(),
        "routing_mode": flags.routing_mode,
        **geometry,
    }
    rows, columns = slice(None, None, config.batch_stride), slice(None, None, config.time_stride)
    for name in sorted(config.stored(flags.info_level)):
        for entry, (tensor, time_axis) in _tensors(trace, name).items():
            kept = tensor[rows, :, columns] if time_axis == 2 else tensor[rows, :, :, columns]
            info[entry] = kept.detach().cpu() if config.detach_to_cpu else kept
    return info


def _tensors(trace: Trace, name: str) -> dict[str, tuple[Tensor, int]]:
    """The entries that one `store_...` option adds, each with the number of its time axis."""
    match name:
        case "read_weights":
            return {"read_weights": (trace.read_weights, 2)}
        case "read_logits":
            return {
                "read_logits": (trace.read_logits, 2),
                "read_logits_key": (trace.key_logits, 2),
                "read_logits_content": (trace.content_logits, 2),
            }
        case "write_logits":
            raw = trace.write_logits.mT
            return {"write_logits_raw": (raw, 3), "write_logits": (raw + trace.alibi_bias(), 3)}
        case "slot_state_norm":
            return {"slot_state_norm": (trace.slots.norms().mT, 3)}
        case "out1":
            return {"out1": (trace.out1(), 2)}
        case "delta":
            delta = trace.delta()
            return {} if delta is None else {"delta": (trace.gate * delta, 2)}
        case _:
            return {} if trace.slot_weights is None else {"slot_w": (trace.slot_weights, 2)}
