"""Interventions on the refinement's output: its parts parallel and orthogonal to the first read, and their measures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from models.asm.errors import InputError

TINY = 1e-8
MODES = ("off", "delta_par", "delta_orth", "delta_par_plus_orth", "orth_gate")
SCORES = ("orth_frac", "orth_ratio", "alpha_abs", "slot_peaked")


@dataclass(slots=True, kw_only=True)
class Intervention:
    """The `_intv_*` attributes of a layer, with the original's defaults."""

    mode: str = "off"
    beta: float = 1.0
    score_kind: str = "orth_frac"
    tau_kind: str = "pctl"
    tau: float = 0.15
    tau_pctl: float = 75.0
    mask_mode: str = "soft"
    soft_temp: float = 0.05
    par_beta: float = 1.0
    head_mask: Tensor | None = None
    score_clip_pctl: float = 99.0

    def check(self, heads: int) -> None:
        for name, allowed in (
            ("mode", MODES),
            ("score_kind", SCORES),
            ("tau_kind", ("abs", "pctl")),
            ("mask_mode", ("soft", "hard")),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(f"_intv_{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.head_mask is not None and self.head_mask.shape != (heads,):
            raise InputError(f"_intv_head_mask should have shape {[heads]}, found {list(self.head_mask.shape)}")


@dataclass(slots=True, kw_only=True)
class Geometry:
    """delta split by its direction relative to out1, both [B,H,T,d]: par = alpha out1, par + orth = delta.

    alpha is [B,H,T].
    """

    out1: Tensor
    delta: Tensor
    alpha: Tensor
    par: Tensor
    orth: Tensor

    @classmethod
    def of(cls, out1: Tensor, delta: Tensor) -> Geometry:
        alpha = (delta * out1).sum(dim=-1) / out1.square().sum(dim=-1).clamp_min(TINY)
        par = alpha.unsqueeze(-1) * out1
        return cls(out1=out1, delta=delta, alpha=alpha, par=par, orth=delta - par)

    def measures(self) -> dict[str, Tensor]:
        """The measures, each [B,H,T], under the names that the original's info uses."""
        size = vector_norm(self.delta, dim=-1)
        first = vector_norm(self.out1, dim=-1).clamp_min(TINY)
        return {
            "geom_alpha_mean": self.alpha,
            "geom_alpha_abs": self.alpha.abs(),
            "geom_sign_pos": (self.alpha > 0).to(self.alpha.dtype),
            "geom_orth_frac": vector_norm(self.orth, dim=-1) / size.clamp_min(TINY),
            "geom_d_ratio": size / first,
            "geom_dpar_ratio": vector_norm(self.par, dim=-1) / size.clamp_min(TINY),
        }

    def means(self, groups: list[slice]) -> dict[str, Tensor]:
        """The mean of each measure per head [H]: first over each write chunk, then over chunks with equal weight."""
        return {
            name: torch.stack([x[:, :, part].mean(dim=(0, 2)) for part in groups]).mean(dim=0)
            for name, x in self.measures().items()
        }


def intervened(geometry: Geometry, slot_weights: Tensor, setting: Intervention, groups: list[slice]) -> Tensor:
    """The delta [B,H,T,d] to add instead of the plain one.

    As in the original, percentiles are taken over all rows, heads and columns of each group, padding included. So the
    result of a row depends on the other rows of its batch.
    """
    if setting.mode == "delta_par":
        changed = geometry.par
    elif setting.mode == "delta_orth":
        changed = geometry.orth
    elif setting.mode == "delta_par_plus_orth":
        changed = setting.par_beta * geometry.par + setting.beta * geometry.orth
    elif setting.mode == "orth_gate":
        score = _score(geometry, slot_weights, setting.score_kind)
        mask = torch.cat([_gate(score[:, :, part], setting) for part in groups], dim=2)
        changed = setting.par_beta * geometry.par + setting.beta * mask.unsqueeze(-1) * geometry.orth
    else:
        return geometry.delta
    if setting.head_mask is None:
        return changed
    chosen = (setting.head_mask.to(changed.device) != 0).view(1, -1, 1, 1)
    return torch.where(chosen, changed, geometry.delta)


def _score(geometry: Geometry, slot_weights: Tensor, kind: str) -> Tensor:
    """The score [B,H,T] that the gate compares with its threshold."""
    if kind == "alpha_abs":
        return geometry.alpha.abs()
    if kind == "slot_peaked":  # the strongest slot's share of the refinement's weights
        size = slot_weights.abs()
        return size.amax(dim=-1) / size.sum(dim=-1).clamp_min(TINY)
    against = geometry.delta if kind == "orth_frac" else geometry.out1
    share: Tensor = vector_norm(geometry.orth, dim=-1) / vector_norm(against, dim=-1).clamp_min(TINY)
    return share


def _gate(score: Tensor, setting: Intervention) -> Tensor:
    """How much of the orthogonal part the gate lets through in one group, 0..1."""
    flat = score.detach().flatten()
    score = score.clamp_max(float(flat.quantile(setting.score_clip_pctl / 100)))
    tau = setting.tau
    if setting.tau_kind == "pctl":
        tau = float(score.detach().flatten().quantile(setting.tau_pctl / 100))
    if setting.mask_mode == "hard":
        return (score > tau).to(score.dtype)
    return torch.sigmoid((score - tau) / max(1e-6, setting.soft_temp))
