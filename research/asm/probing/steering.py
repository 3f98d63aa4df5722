"""Compares two ways to change a margin: through the routing of one layer, or through the residual stream after it.

Each is steered at the last token of every prompt, along the gradient of the mean margin. The gradient lies in the space
of the first three principal components, which are taken over the ends of the prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from models.asm.lm import ASMLanguageModel
from models.asm.trace import Info
from research.asm.probing.reading import Prompts, attention_of, look, next_tokens, routed

COMPONENTS = 3
WINDOW = 5
"""The number of tokens at the end of each prompt from which the components are computed."""
GRADIENT_EPS = 1e-2
SWEEP = (0.0, 0.01, 0.02, 0.04, 0.08)
SLOPE_POINTS = 3


@dataclass(frozen=True, slots=True)
class Subspace:
    """The first P principal components of samples [N,D]: mean [D], axes [P,D], share of the variance [P]."""

    mean: Tensor
    axes: Tensor
    shares: Tensor

    @classmethod
    def of(cls, samples: Tensor) -> Subspace:
        mean = samples.mean(dim=0)
        _, sizes, axes = torch.linalg.svd(samples - mean, full_matrices=False)
        count = min(COMPONENTS, len(axes))
        total = sizes.square().sum().clamp_min(torch.finfo(sizes.dtype).tiny)
        axes = axes[:count]
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        return cls(mean, axes * largest.sign(), sizes[:count].square() / total)

    def coordinates(self, x: Tensor) -> Tensor:
        """Points [..,D] -> their coordinates [..,P]."""
        return (x - self.mean) @ self.axes.T

    def decoded(self, z: Tensor) -> Tensor:
        """Coordinates [..,P] -> their points [..,D] in the subspace."""
        return self.mean + z @ self.axes


@dataclass(frozen=True, slots=True)
class Steered:
    """`margins` at each step of SWEEP along the unit vector of `gradient`, and their slope over the first three."""

    variance: list[float]
    gradient: list[float]
    margins: list[float]
    slope: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`unforced` is the mean margin without any change. Routing starts from its projection to the subspace instead."""

    layer: int
    unforced: float
    sweep: list[float]
    routing: Steered
    residual: Steered
    residual_frozen: Steered


def compare(model: ASMLanguageModel, prompts: Prompts, layer: int, margin: Callable[[Tensor], Tensor]) -> Comparison:
    """Steers a baseline model at one layer. `margin` turns log probabilities [B,V] into margins [B]."""

    def mean_margin() -> float:
        return float(margin(next_tokens(model, prompts)).mean())

    infos, hidden = look(model, prompts, layer)
    routing_space, routing_at = _routing(model, prompts, layer, infos[layer], mean_margin)
    residual_space = Subspace.of(_late(hidden, prompts))
    block = model.layers()[layer]

    def residual_at(shift: Tensor) -> float:
        # The block's last step adds the MLP's output, so adding to that also adds to the block's output.
        handle = block.mlp.register_forward_hook(lambda _, __, out: out + shift @ residual_space.axes)
        try:
            return mean_margin()
        finally:
            handle.remove()

    def frozen_at(shift: Tensor) -> float:
        with ExitStack() as stack:
            for number, info in enumerate(infos):
                weights = _last(info["read_weights"].transpose(1, 2), prompts).unsqueeze(2)  # (B, H, 1, K)
                stack.enter_context(routed(attention_of(model, number), weights))
            return residual_at(shift)

    gradient = gradient_of(residual_at, residual_space)
    return Comparison(
        layer=layer,
        unforced=mean_margin(),
        sweep=list(SWEEP),
        routing=_steered(routing_at, routing_space, gradient_of(routing_at, routing_space)),
        residual=_steered(residual_at, residual_space, gradient),
        residual_frozen=_steered(frozen_at, residual_space, gradient),
    )


def _routing(
    model: ASMLanguageModel, prompts: Prompts, layer: int, info: Info, mean_margin: Callable[[], float]
) -> tuple[Subspace, Callable[[Tensor], float]]:
    """The subspace of a layer's read logits (all heads concatenated), and the mean margin when routing is forced to a
    point in it."""
    attention = attention_of(model, layer)
    logits = info["read_logits"].transpose(1, 2)  # (B, T, H, K)
    space = Subspace.of(_late(logits.flatten(2), prompts))
    start = space.coordinates(_last(logits, prompts).flatten(1))
    temperature = max(1e-6, attention.config.read_temperature)

    def at(shift: Tensor) -> float:
        forced = space.decoded(start + shift).view(len(start), *logits.shape[2:])  # (B, H, K)
        with routed(attention, (forced / temperature).softmax(dim=-1).unsqueeze(2)):
            return mean_margin()

    return space, at


def _late(x: Tensor, prompts: Prompts) -> Tensor:
    """The rows [N,D] of x [B,T,D] at the last tokens of every prompt."""
    rows = [one[max(0, int(length) - WINDOW) : int(length)] for one, length in zip(x, prompts.lengths, strict=True)]
    return torch.cat(rows)


def _last(x: Tensor, prompts: Prompts) -> Tensor:
    """[B,T,..] -> [B,..] at the last token of every prompt."""
    return x[torch.arange(len(x), device=x.device), prompts.lengths - 1]


def gradient_of(at: Callable[[Tensor], float], space: Subspace) -> Tensor:
    """The gradient, from central differences along each axis."""
    steps = GRADIENT_EPS * torch.eye(len(space.axes), dtype=space.axes.dtype, device=space.axes.device)
    return torch.stack([steps.new_tensor((at(step) - at(-step)) / (2 * GRADIENT_EPS)) for step in steps])


def _steered(at: Callable[[Tensor], float], space: Subspace, gradient: Tensor) -> Steered:
    size = gradient.norm()
    direction = gradient / size if float(size) > 0 else gradient
    margins = [at(eps * direction) for eps in SWEEP]
    return Steered(space.shares.tolist(), gradient.tolist(), margins, slope(SWEEP, margins))


def slope(eps: tuple[float, ...], margins: list[float]) -> float:
    """The slope of the least-squares line through the first points."""
    x, y = eps[:SLOPE_POINTS], margins[:SLOPE_POINTS]
    middle, height = fmean(x), fmean(y)
    rise = sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True))
    return rise / sum((a - middle) ** 2 for a in x)
