"""The flags of a call: their names, the variants that accept them, and the values that they may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from models.asm.errors import InputError

ROUTING_MODES = ("softmax", "top1", "topk", "external")
NOISES = ("gumbel", "gaussian")
MASK_WHERES = ("read", "content_read_only", "slotspace_only")
MASK_SCOPES = ("all", "last_pos_only")
INFO_LEVELS = ("basic", "logits", "full")

RoutingOverride = Tensor | Callable[..., Tensor]
"""Read weights [B,H,T,K], or a function f(t0, t1, read_logits, key_logits, content_logits, ctx) that returns them for
the columns t0..t1 of the call. `ctx` holds `layer`, `start` [B] and `lengths` [B]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoConfig:
    """What the info of the `intervene` variant holds besides its scalars. None means that `info_level` decides."""

    store_read_weights: bool = True
    store_read_logits: bool | None = None
    store_write_logits: bool | None = None
    store_slot_state_norm: bool | None = None
    store_out1: bool | None = None
    store_delta: bool | None = None
    store_slot_w: bool | None = None
    detach_to_cpu: bool = False
    time_stride: int = 1
    batch_stride: int = 1

    def stored(self, level: str) -> set[str]:
        """Names of the tensors to keep. Level `logits` adds the logits, `full` adds everything."""
        by_level = {"read_weights": 0, "read_logits": 1, "write_logits": 1, "slot_state_norm": 2}
        by_level |= {"out1": 2, "delta": 2, "slot_w": 2}
        chosen = {name: getattr(self, f"store_{name}") for name in by_level}
        rank = INFO_LEVELS.index(level)
        return {name for name, least in by_level.items() if (rank >= least if chosen[name] is None else chosen[name])}


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """The flags of one call, with the original's defaults."""

    return_info: bool = False
    return_light_stats: bool = False
    routing_mode: str = "softmax"
    routing_topk: int = 2
    read_weights_override: Tensor | None = None
    routing_noise: str | None = None
    routing_noise_scale: float = 1.0
    slot_mask: Tensor | None = None
    slot_mask_where: str = "read"
    slot_mask_scope: str = "all"
    info_level: str = "basic"
    info_cfg: InfoConfig = field(default_factory=InfoConfig)

    def __post_init__(self) -> None:
        for name, allowed in (
            ("routing_mode", ROUTING_MODES),
            ("routing_noise", (None, *NOISES)),
            ("slot_mask_where", MASK_WHERES),
            ("slot_mask_scope", MASK_SCOPES),
            ("info_level", INFO_LEVELS),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(map(str, allowed))}, not {value!r}")
        if self.routing_mode == "external" and self.read_weights_override is None:
            raise InputError("routing_mode external needs read_weights_override [B,H,T,K]")
        if self.routing_topk < 1:
            raise InputError(f"routing_topk must be at least 1, not {self.routing_topk}")

    @property
    def wants_info(self) -> bool:
        return self.return_info or self.return_light_stats


COMMON = frozenset({"return_info"})
ROUTING = frozenset({"routing_mode", "routing_topk", "read_weights_override", "routing_noise", "routing_noise_scale"})
SLOT_MASK = frozenset({"slot_mask", "slot_mask_where", "slot_mask_scope"})
BASELINE_FLAGS = COMMON | ROUTING | SLOT_MASK
ONLINE_FLAGS = COMMON | {"return_light_stats"}
INTERVENE_FLAGS = COMMON | ROUTING | {"info_level", "info_cfg"}


def read_flags(variant: str, supported: frozenset[str], given: Mapping[str, Any]) -> Flags:
    """The flags of a call to one variant. Raises InputError, which names the flag, for one that it does not support."""
    for name in given:
        if name not in supported:
            kind = "does not support the flag" if name in {f.name for f in fields(Flags)} else "has no flag"
            raise InputError(f"the {variant} variant {kind} {name}; it has {', '.join(sorted(supported))}")
    options = dict(given)
    config = options.get("info_cfg")
    if isinstance(config, Mapping):
        unknown = config.keys() - {f.name for f in fields(InfoConfig)}
        if unknown:
            raise InputError(f"info_cfg has no option {sorted(unknown)[0]}")
        options["info_cfg"] = InfoConfig(**config)
    elif "info_cfg" in options and config is None:
        del options["info_cfg"]
    return Flags(**options)


def slot_mask_of(mask: Tensor, slots: int, device: torch.device) -> Tensor:
    """The slots to keep, as booleans [K]; a nonzero entry of the mask keeps its slot."""
    if mask.shape != (slots,):
        raise InputError(f"slot_mask should have shape {[slots]}, found {list(mask.shape)}")
    keep = mask.to(device) != 0
    if not bool(keep.any()):
        raise InputError("slot_mask must keep at least one slot, but all its entries are 0")
    return keep
