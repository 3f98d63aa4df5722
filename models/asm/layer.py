"""Addressed State Attention: the part that all variants of the layer share, which is nearly all of it.

Each head keeps K slots. A token writes its value into every slot, weighted by a softmax over time (of its key against
the slot key, with ALiBi for recency). It then reads the slots with a softmax over slots. The refinement, a causal
linear attention over the read weights, adds a second read.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn import functional as F

from models.asm.configuration import AttentionConfig
from models.asm.errors import ConfigError, InputError
from models.asm.flags import (
    Flags,
    RoutingOverride,
    read_flags,
)
from models.asm.positions import Span, rotate, span_of
from models.asm.routing import masked, read_weights, with_noise
from models.asm.scan import WriteScan, refine_scan, write_scan
from models.asm.state import Memory, State, check_state, new_state, stack
from models.asm.trace import Info, Trace

_SWITCHES = ("routing_override", "slot_mask", "_log_refine_geom")


class AttentionLayer(nn.Module):
    """The base class of the variants: parameters, the call, the formulas."""

    VARIANT: ClassVar[str]
    FLAGS: ClassVar[frozenset[str]]
    ATTRIBUTES: ClassVar[frozenset[str]] = frozenset()
    """The switches that may be set on a layer of this variant. Setting another one raises InputError."""

    def __init__(self, config: AttentionConfig | None = None, /, **options: Any) -> None:
        """Takes a configuration, or its fields by name."""
        super().__init__()
        if config is None:
            try:
                config = AttentionConfig(**options)
            except TypeError as error:  # Python's text begins with the name of a class that the caller never typed
                raise ConfigError(f"the layer: {str(error).split('__init__() ')[-1]}") from None
        elif options:
            raise ConfigError(f"give a configuration or options, not both ({sorted(options)[0]})")
        self.config = c = config
        self.write_scan: WriteScan = write_scan  # may be replaced by `window_scan`: same result, faster in training
        channels, heads, slots, size = c.embed_dim, c.num_heads, c.num_slots, c.head_dim
        self.slot_keys = nn.Parameter(torch.randn(heads, slots, size) / math.sqrt(size))
        self.Wk_write = nn.Linear(channels, channels, bias=False)
        self.Wv_write = nn.Linear(channels, channels, bias=False)
        self.Wq_read = nn.Linear(channels, channels, bias=False)
        self.out_proj = nn.Linear(channels, channels, bias=False)
        self.dropout = nn.Dropout(c.dropout)
        if c.use_alibi_write and c.learn_alibi_strength:
            above = max(1e-8, c.alibi_strength_init - c.min_strength)
            start = above + math.log(-math.expm1(-above))  # softplus(start) == above
            self._alibi_strength_param = nn.Parameter(torch.tensor(start))
        if c.use_content_read:
            self._content_read_gamma_raw = nn.Parameter(torch.tensor(float(c.content_read_init)))
        if c.use_slotspace_refine:
            width = c.slotspace_dim
            self.slot_in = nn.Linear(slots, width, bias=False)
            self.slot_q = nn.Linear(width, width, bias=False)
            self.slot_k = nn.Linear(width, width, bias=False)
            self.slot_v = nn.Linear(width, width, bias=False)
            self.slot_out = nn.Linear(width, slots, bias=False)
            self.slotspace_dropout = nn.Dropout(c.slotspace_dropout)
            self._slotspace_gate_raw = nn.Parameter(torch.tensor(float(c.slotspace_gate_init)))

    def __setattr__(self, name: str, value: Any) -> None:
        if (name in _SWITCHES or name.startswith("_intv_")) and name not in self.ATTRIBUTES:
            raise InputError(f"the {self.VARIANT} variant does not support the attribute {name}")
        super().__setattr__(name, value)

    def new_state(self, batch: int) -> State:
        """The state of `batch` contexts that have not read anything yet."""
        return new_state(self.config, batch, device=self.slot_keys.device, dtype=self.slot_keys.dtype)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        attention_mask: Tensor | None = None,
        lengths: Tensor | None = None,
        **flags: Any,
    ) -> tuple[Tensor, State] | tuple[Tensor, State, Info]:
        """Reads x [B,T,C] after `state` (None: from the start). Returns y [B,T,C] and the state after it.

        With `return_info` (in the online variant also with `return_light_stats`) it returns a dictionary as the third
        value. Rows may differ in length: pass `lengths` [B], or an `attention_mask` [B,T] that is 1 for real tokens.
        The call changes neither `state` nor x. `models.asm.flags.Flags` lists the flags; a flag that the variant does
        not support raises InputError.
        """
        options = read_flags(self.VARIANT, self.FLAGS, flags)
        batch, width = x.shape[:2]
        if state is None:
            state = self.new_state(batch)
        check_state(self.config, state, batch, 1, self.slot_keys.dtype)
        dtype = state.memory.m.dtype
        span = span_of(self.config, state.t, width, dtype, attention_mask=attention_mask, lengths=lengths)
        y, memory, info = self.run(x, state.memory.layer(0), span, options)
        new = State(stack([memory]), span.end, state.scan)
        return (y, new) if info is None else (y, new, info)

    def run(self, x: Tensor, memory: Memory, span: Span, flags: Flags) -> tuple[Tensor, Memory, Info | None]:
        """Runs the layer without checking its input: x [B,T,C], and this layer's memory [B,...]."""
        c = self.config
        kept = memory.m.dtype
        keys = self._slot_keys().to(kept)
        k, v, q = (self._by_head(project(x)).to(kept) for project in (self.Wk_write, self.Wv_write, self.Wq_read))
        if c.normalize_k:
            k = k / vector_norm(k, dim=-1, keepdim=True).clamp_min(1e-8)
        if span.write_rope is not None:
            k = rotate(k, span.write_rope)
        scale = 1 / math.sqrt(c.head_dim)
        write_logits = k @ keys.mT * (scale / max(1e-6, c.write_temperature))  # (B, H, T, K)
        strength, gamma, gate = self.strength().to(kept), self.gamma().to(kept), self.gate().to(kept)
        decay = strength * span.slopes  # (H); 0 without ALiBi
        slots, memory = self.write_scan(write_logits, v, decay, memory, span, c.chunk)

        drop = self._dropped_slots(flags, span)  # (B, 1, T, K), or None
        key_logits = q @ keys.mT * scale
        content_logits = slots.dot(q) * scale if c.use_content_read else torch.zeros_like(key_logits)
        if drop is not None and flags.slot_mask_where == "content_read_only":
            content_logits = content_logits.masked_fill(drop, 0.0)
        read_logits = with_noise(key_logits + gamma * content_logits, flags)
        if drop is not None and flags.slot_mask_where == "read":
            read_logits = read_logits.masked_fill(drop, -torch.inf)
        context = {"layer": self, "start": span.start, "lengths": span.lengths}
        weights = read_weights(
            read_logits, key_logits, content_logits, c.read_temperature, flags, self._override(), context
        )
        if drop is not None and flags.slot_mask_where == "read":
            weights = masked(weights, drop, renormalise=True)

        slot_weights = None
        if c.use_slotspace_refine:
            slot_weights, memory = self._refined(weights, memory, span)
            if drop is not None and flags.slot_mask_where == "slotspace_only":
                slot_weights = masked(slot_weights, drop, renormalise=not c.slotspace_signed_weights)
        trace = Trace(
            span=span,
            write_logits=write_logits,
            decay=decay,
            slots=slots,
            key_logits=key_logits,
            content_logits=content_logits,
            read_logits=read_logits,
            read_weights=weights,
            slot_weights=slot_weights,
            strength=strength,
            gamma=gamma,
            gate=gate,
        )
        out = self._mixed(trace)  # (B, H, T, d)
        y = self.out_proj(out.to(x.dtype).transpose(1, 2).flatten(2))  # (B, T, C)
        return self.dropout(y), memory, self._info(trace, flags) if flags.wants_info else None

    def strength(self) -> Tensor:
        """ALiBi decay per token, before it is multiplied by the slope of the head."""
        c = self.config
        if not c.use_alibi_write:
            return self.slot_keys.new_zeros(())
        if c.learn_alibi_strength:
            return F.softplus(self._alibi_strength_param) + c.min_strength
        return self.slot_keys.new_tensor(c.alibi_strength_init)

    def gamma(self) -> Tensor:
        """The weight of the slots' contents in the read logits."""
        c = self.config
        if not c.use_content_read:
            return self.slot_keys.new_zeros(())
        gamma = F.softplus(self._content_read_gamma_raw)
        return gamma.clamp_max(c.content_read_max_gamma) if c.content_read_max_gamma > 0 else gamma

    def gate(self) -> Tensor:
        """The factor by which the refinement's read is scaled."""
        if not self.config.use_slotspace_refine:
            return self.slot_keys.new_zeros(())
        return F.softplus(self._slotspace_gate_raw)

    def _slot_keys(self) -> Tensor:
        """The slot keys [H,K,d]. In training, `slot_dropout` sets those of whole slots to zero."""
        rate = self.config.slot_dropout
        if not self.training or rate <= 0:
            return self.slot_keys
        keep = torch.rand(self.slot_keys.shape[:2], device=self.slot_keys.device) >= rate
        return self.slot_keys * keep.unsqueeze(-1).to(self.slot_keys.dtype)

    def _by_head(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.config.num_heads, self.config.head_dim).transpose(1, 2)  # (B, H, T, d)

    def _refined(self, weights: Tensor, memory: Memory, span: Span) -> tuple[Tensor, Memory]:
        """Read weights [B,H,T,K] -> the refinement's slot weights of the same shape, and the new memory."""
        c, kept = self.config, weights.dtype
        u = F.linear(weights, self.slot_in.weight.to(kept))  # (B, H, T, M)
        q, k, v = (F.linear(u, project.weight.to(kept)) for project in (self.slot_q, self.slot_k, self.slot_v))
        if span.slot_rope is not None:
            q, k = rotate(q, span.slot_rope), rotate(k, span.slot_rope)
        u, memory = refine_scan(_phi(q), _phi(k), v, memory, c.slotspace_chunk_size, span.real)
        logits = F.linear(self.slotspace_dropout(u), self.slot_out.weight.to(kept))
        return torch.tanh(logits) if c.slotspace_signed_weights else logits.softmax(dim=-1), memory

    def _dropped_slots(self, flags: Flags, span: Span) -> Tensor | None:  # noqa: ARG002
        return None

    def _override(self) -> RoutingOverride | None:
        return None

    def _mixed(self, trace: Trace) -> Tensor:
        """Both reads of the slots [B,H,T,d] in one product, since both are weighted sums of the same slots."""
        if trace.slot_weights is None:
            return trace.out1()
        return trace.slots.mix(trace.read_weights + trace.gate * trace.slot_weights)

    def _info(self, trace: Trace, flags: Flags) -> Info:
        raise NotImplementedError


def _phi(x: Tensor) -> Tensor:
    """elu(x) + 1, written so that a small exp(x) is not lost in the sum."""
    return x.clamp_max(0.0).exp() + x.relu()
