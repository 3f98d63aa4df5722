"""RWKV-7 forward: decode and prefill of a batch of independent contexts, and the same layers under autograd.

Formulas: Peng et al. 2025, "RWKV-7 Goose with Expressive Dynamic State Evolution" (arXiv 2503.14456), section 4.
Dimension letters: B contexts, T tokens, C channels, H heads, N head size, V vocabulary, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from models.rwkv7.config import Config
from models.rwkv7.layers import ChannelMix, LowRank, TimeMix, Weights
from models.rwkv7.scan import wkv_chunked, wkv_step_

DECAY_SCALE = math.exp(-0.5)
HEAD_NORM_EPS = 64e-5


@dataclass(slots=True)
class State:
    """What B contexts remember, fp32.

    shifts [L,2,B,C]: the normalised input of the last token, for time mixing (0) and channel mixing (1).
    wkv [L,B,H,N,N]: the matrix of each head; last axis the key side, the one before the value side.
    """

    shifts: Tensor
    wkv: Tensor

    @property
    def batch(self) -> int:
        return self.shifts.shape[2]

    def clone(self) -> State:
        return State(self.shifts.clone(), self.wkv.clone())

    def pick(self, rows: Sequence[int]) -> State:
        """A copy of some contexts, in the order given; a row may come twice (a fork)."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.wkv.device)
        return State(self.shifts.index_select(2, index), self.wkv.index_select(1, index))

    def put(self, rows: Sequence[int], other: State) -> None:
        """Copies the contexts of `other` into these rows."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.wkv.device)
        self.shifts.index_copy_(2, index, other.shifts)
        self.wkv.index_copy_(1, index, other.wkv)


def new_state(config: Config, batch: int, device: str | torch.device = "cpu") -> State:
    """The state of `batch` contexts that have read nothing."""
    layers, heads, size = config.layers, config.heads, config.head_size
    shifts = torch.zeros(layers, 2, batch, config.channels, device=device)
    return State(shifts, torch.zeros(layers, batch, heads, size, size, device=device))


@torch.no_grad()
def forward(weights: Weights, tokens: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Reads tokens [B,T] and returns logits [B,V] (fp32) after each row's last real token.

    `lengths` [B] counts the real tokens of each row (1..T), the rest is padding of any valid id; None means that all
    are real. `state` is changed in place and returned. T == 1 takes the decode path, T > 1 the chunked one.
    """
    length = tokens.shape[1]
    if lengths is not None:
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < 1 or longest > length:
            raise ValueError(f"lengths must lie in 1..{length}, found {shortest}..{longest}")
        lengths = None if shortest == length else lengths.to(weights.device)
    x, new = _layers(weights, tokens.to(weights.device), lengths, state)
    state.shifts.copy_(new.shifts)
    if new.wkv is not state.wkv:
        state.wkv.copy_(new.wkv)
    return weights.head(weights.norm_out(_last(x, lengths)).unsqueeze(1)).squeeze(1), state


def forward_train(weights: Weights, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Logits [B,T,V] of every position and the state after them.

    Differentiable in weights and state; neither is changed.
    """
    x, new = _layers(weights, tokens, None, state)
    return weights.head(weights.norm_out(x)), new


def _layers(weights: Weights, tokens: Tensor, lengths: Tensor | None, state: State) -> tuple[Tensor, State]:
    """Embedding and blocks: x [B,T,C] before the last norm, and the new state.

    Decode changes the given wkv in place; everything else is new.
    """
    in_place = tokens.shape[1] == 1 and not torch.is_grad_enabled()
    x = weights.norm_in(F.embedding(tokens, weights.embedding).float())  # (B, T, C)
    first_value: Tensor | None = None
    shifts, matrices = [], []
    for layer, block in enumerate(weights.blocks):
        normed = block.norm1(x)
        matrix = state.wkv[layer]
        mixed, first_value, matrix = _time_mix(
            block.time, normed, state.shifts[layer, 0], first_value, matrix, lengths, in_place
        )
        shifts.append(_last(normed, lengths))
        matrices.append(matrix)
        x = x + mixed
        normed = block.norm2(x)
        x = x + _channel_mix(block.channel, normed, state.shifts[layer, 1])
        shifts.append(_last(normed, lengths))
    batch, channels = x.shape[0], x.shape[2]
    new_shifts = torch.stack(shifts).view(len(weights.blocks), 2, batch, channels)
    return x, State(new_shifts, state.wkv if in_place else torch.stack(matrices))


def _time_mix(
    p: TimeMix,
    x: Tensor,
    before: Tensor,
    first_value: Tensor | None,
    matrix: Tensor,
    lengths: Tensor | None,
    in_place: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """x [B,T,C], before [B,C], matrix [B,H,N,N] -> the output [B,T,C], the first layer's value, the new matrix."""
    batch, length, channels = x.shape
    heads, size = p.r_k.shape
    by_head = (batch, length, heads, size)
    x_r, x_w, x_k, x_v, x_a, x_g = torch.addcmul(x, _shifted(x, before) - x, p.mix).unbind(0)
    r, k, v = p.receptance(x_r), p.key(x_k), p.value(x_v)
    log_w = -DECAY_SCALE * torch.sigmoid(p.w.base + p.w.up(torch.tanh(p.w.down(x_w))))
    a = torch.sigmoid(_low_rank(p.a, x_a))
    g = p.g.up(torch.sigmoid(p.g.down(x_g)))
    if p.v is None or first_value is None:
        first_value = v
    else:
        v = torch.lerp(v, first_value, torch.sigmoid(_low_rank(p.v, x_v)))
    removal = F.normalize((k * p.k_k).view(by_head), dim=-1)
    k = k * torch.lerp(torch.ones_like(a), a, p.k_a)
    if lengths is not None:
        real = torch.arange(length, device=x.device).expand(batch, length) < lengths.unsqueeze(1)
        real = real.unsqueeze(-1).to(x.dtype)  # (B, T, 1)
        k, log_w, removal = k * real, log_w * real, removal * real.unsqueeze(-1)
    r, k, v, a, log_w = (t.view(by_head) for t in (r, k, v, a, log_w))
    if in_place:
        w = log_w.exp()
        y = wkv_step_(matrix, *(t.squeeze(1) for t in (r, w, k, v, -removal, removal * a)))
    else:
        y, matrix = wkv_chunked(r, log_w, k, v, -removal, removal * a, matrix)
    y = F.group_norm(y.reshape(batch * length, channels), heads, p.norm.weight, p.norm.bias, HEAD_NORM_EPS)
    bonus = (r * k * p.r_k).sum(dim=-1, keepdim=True) * v  # (B, T, H, N)
    return p.output((y.view(batch, length, channels) + bonus.view(batch, length, channels)) * g), first_value, matrix


def _channel_mix(p: ChannelMix, x: Tensor, before: Tensor) -> Tensor:
    k = torch.addcmul(x, _shifted(x, before) - x, p.mix)
    return p.value(torch.relu(p.key(k)).square())


def _low_rank(p: LowRank, x: Tensor) -> Tensor:
    return p.base + p.up(p.down(x))


def _shifted(x: Tensor, before: Tensor) -> Tensor:
    """Each token's predecessor: `before` [B,C] for the first one."""
    return torch.cat((before.unsqueeze(1), x[:, :-1]), dim=1) if x.shape[1] > 1 else before.unsqueeze(1)


def _last(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [B,T,C] -> [B,C] at each row's last real token; a copy, so that the whole of x is not kept alive."""
    if lengths is None:
        return x[:, -1].clone()
    return x[torch.arange(x.shape[0], device=x.device), lengths - 1]
