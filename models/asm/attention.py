"""The three public variants of the layer. They share weights and formulas; each accepts other flags."""

from __future__ import annotations

from torch import Tensor

from models.asm.configuration import AttentionConfig
from models.asm.errors import ConfigError
from models.asm.flags import BASELINE_FLAGS, INTERVENE_FLAGS, ONLINE_FLAGS, Flags, RoutingOverride, slot_mask_of
from models.asm.intervention import Geometry, Intervention, intervened
from models.asm.layer import AttentionLayer
from models.asm.positions import Span
from models.asm.trace import Info, Trace, baseline_info, intervene_info, light_stats


class AddressedStateAttention(AttentionLayer):
    """All routing modes and slot masks.

    The attributes `routing_override` and `slot_mask` apply to every call; a call's own `slot_mask` takes precedence.
    """

    VARIANT = "baseline"
    FLAGS = BASELINE_FLAGS
    ATTRIBUTES = frozenset({"routing_override", "slot_mask"})
    routing_override: RoutingOverride | None
    slot_mask: Tensor | None

    def __init__(self, config: AttentionConfig | None = None, /, **options: object) -> None:
        super().__init__(config, **options)
        self.routing_override = None
        self.slot_mask = None

    def _override(self) -> RoutingOverride | None:
        return self.routing_override

    def _dropped_slots(self, flags: Flags, span: Span) -> Tensor | None:
        mask = self.slot_mask if flags.slot_mask is None else flags.slot_mask
        if mask is None:
            return None
        drop = ~slot_mask_of(mask, self.config.num_slots, span.start.device)
        if flags.slot_mask_scope == "all":
            return drop.view(1, 1, 1, -1)
        # The original masks the last token of every write chunk in the read, but only the text's in the refinement.
        columns = span.last() if flags.slot_mask_where == "slotspace_only" else span.chunk_ends(self.config.chunk)
        return (columns.unsqueeze(-1) & drop).unsqueeze(1)

    def _info(self, trace: Trace, flags: Flags) -> Info:
        return baseline_info(trace, flags, self.config.use_rope_slotspace)


class AddressedStateAttentionOnline(AttentionLayer):
    """Plain softmax routing and a few scalars, for training and serving."""

    VARIANT = "online"
    FLAGS = ONLINE_FLAGS

    def _info(self, trace: Trace, flags: Flags) -> Info:  # noqa: ARG002
        return light_stats(trace, self.config.chunk)


class AddressedStateAttentionIntervene(AttentionLayer):
    """All routing modes. The attributes `_intv_*` change the refinement (see `Intervention`)."""

    VARIANT = "intervene"
    FLAGS = INTERVENE_FLAGS
    ATTRIBUTES = frozenset({"routing_override", "_log_refine_geom"} | {f"_intv_{n}" for n in Intervention.__slots__})
    routing_override: RoutingOverride | None

    def __init__(self, config: AttentionConfig | None = None, /, **options: object) -> None:
        super().__init__(config, **options)
        self.routing_override = None
        self._log_refine_geom = False
        for name in Intervention.__slots__:
            setattr(self, f"_intv_{name}", getattr(Intervention(), name))

    def _override(self) -> RoutingOverride | None:
        return self.routing_override

    def _setting(self) -> Intervention:
        setting = Intervention(**{name: getattr(self, f"_intv_{name}") for name in Intervention.__slots__})
        setting.check(self.config.num_heads)
        return setting

    def _mixed(self, trace: Trace) -> Tensor:
        setting = self._setting()
        geometry = None if setting.mode == "off" else self._geometry(trace)
        if geometry is None or trace.slot_weights is None:
            return super()._mixed(trace)
        groups = trace.span.groups(self.config.chunk) if setting.mode == "orth_gate" else []
        return geometry.out1 + intervened(geometry, trace.slot_weights, setting, groups)

    def _info(self, trace: Trace, flags: Flags) -> Info:
        geometry = self._geometry(trace) if self._log_refine_geom else None
        means = {} if geometry is None else geometry.means(trace.span.groups(self.config.chunk))
        return intervene_info(trace, flags, means)

    def _geometry(self, trace: Trace) -> Geometry | None:
        delta = trace.delta()
        return None if delta is None else Geometry.of(trace.out1(), trace.gate * delta)


VARIANTS: dict[str, type[AttentionLayer]] = {
    kind.VARIANT: kind
    for kind in (AddressedStateAttention, AddressedStateAttentionOnline, AddressedStateAttentionIntervene)
}


def attention_class(variant: str) -> type[AttentionLayer]:
    if variant not in VARIANTS:
        raise ConfigError(f"variant must be one of {', '.join(VARIANTS)}, not {variant!r}")
    return VARIANTS[variant]
