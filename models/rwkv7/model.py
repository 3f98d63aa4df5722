"""RWKV-7 forward: decode and prefill of a batch of independent contexts, and the same layers with gradients.

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
from models.rwkv7.layers import ChannelMix, TimeMix, Weights
from models.rwkv7.scan import wkv_chunked, wkv_step_

DECAY_SCALE = math.exp(-0.5)
HEAD_NORM_EPS = 64e-5


@dataclass(slots=True)
class State:
    """The state of B contexts, in fp32.

    shifts [L,2,B,C]: the normalised input of the last token, for time mixing (0) and channel mixing (1).
    wkv [L,B,H,N,N]: the matrix of each head. The last axis is the key side, the one before it the value side.
    """

    shifts: Tensor
    wkv: Tensor

    @property
    def batch(self) -> int:
        return self.shifts.shape[2]

    def clone(self) -> State:
        return State(self.shifts.clone(), self.wkv.clone())

    def view(self, first: int, count: int) -> State:
        """`count` neighbouring contexts from `first` on, without a copy."""
        return State(self.shifts.narrow(2, first, count), self.wkv.narrow(1, first, count))

    def pick(self, rows: Sequence[int]) -> State:
        """A copy of some contexts, in the given order. A row may appear twice (a fork)."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.wkv.device)
        return State(self.shifts.index_select(2, index), self.wkv.index_select(1, index))


def new_state(config: Config, batch: int, device: str | torch.device = "cpu") -> State:
    """The state of `batch` contexts that have not read anything yet."""
    layers, heads, size = config.layers, config.heads, config.head_size
    shifts = torch.zeros(layers, 2, batch, config.channels, device=device)
    return State(shifts, torch.zeros(layers, batch, heads, size, size, device=device))


@dataclass(slots=True)
class Rows:
    """Maps the tokens of a call to rows of matrices [R,C]: row b * length + t is token t of context b."""

    batch: int
    length: int
    real: Tensor | None = None  # (R, 1): 1 for a real token, 0 for padding; None: no padding
    last: Tensor | None = None  # (B,): the row of each context's last real token; None: its last row

    @classmethod
    def of(cls, shape: torch.Size, lengths: Tensor | None, device: torch.device) -> Rows:
        """The rows of tokens [B,T]. Raises ValueError if a length is not in 1..T."""
        batch, length = shape
        if lengths is None:
            return cls(batch, length)
        shortest, longest = int(lengths.min()), int(lengths.max())
        if shortest < 1 or longest > length:
            raise ValueError(f"lengths must lie in 1..{length}, found {shortest}..{longest}")
        if shortest == length:
            return cls(batch, length)
        real = (torch.arange(length) < lengths.unsqueeze(1)).view(-1, 1).float()
        last = torch.arange(batch) * length + lengths - 1
        return cls(batch, length, real.to(device), last.to(device))

    def shifted(self, x: Tensor, before: Tensor) -> Tensor:
        """The row before each row; for the first token of a context, its row of `before` [B,C]."""
        if self.length == 1:
            return before
        x = x.view(self.batch, self.length, -1)
        return torch.cat((before.unsqueeze(1), x[:, :-1]), dim=1).view(self.batch * self.length, -1)

    def last_of(self, x: Tensor) -> Tensor:
        """x [R,C] -> [B,C] at each context's last real token, without keeping the whole of x alive."""
        if self.last is not None:
            return x[self.last]
        return x if self.length == 1 else x.view(self.batch, self.length, -1)[:, -1].clone()


@torch.inference_mode()
def forward(
    weights: Weights, tokens: Tensor, lengths: Tensor | None, state: State, contexts: Sequence[int] | None = None
) -> tuple[Tensor, State]:
    """Reads tokens [B,T] and returns logits [B,V] (fp32) after each row's last real token.

    `lengths` [B] counts the real tokens of each row (1..T); the rest is padding with any valid id. None means that all
    tokens are real. `contexts` [B] says which context of the state each row belongs to; None means all, in order.
    `state` is changed in place and returned. T == 1 takes the decode path, T > 1 the chunked one.
    """
    contexts = range(state.batch) if contexts is None else contexts
    order = sorted(range(len(contexts)), key=contexts.__getitem__)  # sorted, to get as few runs as possible
    mixed = order != list(range(len(order)))
    if mixed:
        tokens, lengths = tokens[order], None if lengths is None else lengths[order]
    rows = Rows.of(tokens.shape, lengths, weights.device)
    runs = runs_of([contexts[row] for row in order])
    views = [state.view(first, count) for first, count in runs]
    counts = [view.batch for view in views]
    shifts, matrices = _joined([view.shifts for view in views], 2), [view.wkv for view in views]
    if rows.length > 1:
        matrices = [_joined(matrices, 1)]
    x, shifts, new = _layers(weights, tokens, rows, shifts, matrices)
    for view, part in zip(views, torch.split(shifts, counts, dim=2), strict=True):
        view.shifts.copy_(part)
    if rows.length > 1:
        for view, part in zip(views, torch.split(torch.stack(new), counts, dim=1), strict=True):
            view.wkv.copy_(part)
    last = rows.last_of(x)
    if mixed:  # back to the caller's order, while there are only a few numbers
        last = last[torch.tensor(order).argsort()]
    return weights.head(weights.norm_out(last)), state


def runs_of(contexts: Sequence[int]) -> list[tuple[int, int]]:
    """The first context and the length of each run of neighbouring contexts; their states need no copy."""
    runs: list[tuple[int, int]] = []
    for context in contexts:
        if runs and context == sum(runs[-1]):
            runs[-1] = runs[-1][0], runs[-1][1] + 1
        else:
            runs.append((context, 1))
    return runs


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def forward_train(weights: Weights, tokens: Tensor, state: State) -> tuple[Tensor, State]:
    """Returns the logits [B,T,V] of every position, and the state after them.

    Differentiable in weights and state; changes neither. The weights must come from `assemble` without `inference`, not
    from `load`.
    """
    rows = Rows.of(tokens.shape, None, weights.device)
    x, shifts, matrices = _layers(weights, tokens, rows, state.shifts, [state.wkv])
    logits = weights.head(weights.norm_out(x))
    return logits.view(*tokens.shape, -1), State(shifts, torch.stack(matrices))


def _layers(
    weights: Weights, tokens: Tensor, rows: Rows, shifts: Tensor, wkv: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Embedding and blocks. Returns x [R,C] before the last norm, the new shifts [L,2,B,C] and the new matrices.

    When inference reads one token, wkv [L,B,H,N,N] may come in several parts. They are then changed in place, and no
    matrices are returned. Everything else that it returns is new.
    """
    tokens = tokens.to(weights.device).reshape(-1)  # (R,)
    x = weights.norm_in(F.embedding(tokens, weights.embedding).float())  # (R, C)
    first_value: Tensor | None = None
    new_shifts, new_matrices = [], []
    by_layer = zip(*(part.unbind() for part in wkv), strict=True)
    for block, before, matrices in zip(weights.blocks, shifts.unbind(), by_layer, strict=True):
        normed = block.norm1(x)
        mixed, first_value, matrix = _time_mix(block.time, normed, before[0], first_value, matrices, rows)
        new_shifts.append(rows.last_of(normed))
        if matrix is not None:
            new_matrices.append(matrix)
        x = x + mixed
        normed = block.norm2(x)
        x = x + _channel_mix(block.channel, normed, rows.shifted(normed, before[1]))
        new_shifts.append(rows.last_of(normed))
    return x, torch.stack(new_shifts).view_as(shifts), new_matrices


def _time_mix(
    p: TimeMix, x: Tensor, before: Tensor, first_value: Tensor | None, matrices: Sequence[Tensor], rows: Rows
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x [R,C], before [B,C], matrices [B,H,N,N] in parts -> the output [R,C], the first layer's value, a new matrix."""
    heads, size = p.r_k.shape
    by_head = (-1, heads, size)
    mixed = torch.lerp(x, rows.shifted(x, before), p.mix)  # (6, R, C)
    r, k, v = p.rkv(mixed[:3])
    gates = p.gates(mixed[5 - len(p.gates.base) : 5])
    w, a = gates[-2], gates[-1]
    log_w = w * -DECAY_SCALE
    if first_value is None:
        first_value = v
    else:
        v = torch.lerp(v, first_value, gates[0])
    removal = (k * p.k_k).view(by_head)
    removal = removal / torch.linalg.vector_norm(removal, dim=-1, keepdim=True).clamp_min(1e-12)
    k = k * torch.addcmul(p.k_rest, a, p.k_a)
    if rows.real is not None:
        k, log_w, removal = k * rows.real, log_w * rows.real, removal * rows.real.unsqueeze(-1)
    r, k, v, a, log_w = (t.view(by_head) for t in (r, k, v, a, log_w))
    a, b = -removal, removal * a
    if rows.length == 1 and not torch.is_grad_enabled():
        matrix = None
        y = wkv_step_(matrices, r, log_w.exp(), k, v, a, b)
    else:
        by_token = (rows.batch, rows.length, heads, size)
        r_, log_w, k_, v_, a, b = (t.view(by_token) for t in (r, log_w, k, v, a, b))
        y, matrix = wkv_chunked(r_, log_w, k_, v_, a, b, matrices[0])
    y = torch.group_norm(y.reshape_as(x), heads, p.norm.weight, p.norm.bias, HEAD_NORM_EPS)
    bonus = (r * k * p.r_k).sum(dim=-1, keepdim=True)  # (R, H, 1)
    y = torch.addcmul(y.view(by_head), bonus, v).view_as(x)
    return p.output(y * p.g_up(torch.sigmoid(p.g_down(mixed[5])))), first_value, matrix


def _channel_mix(p: ChannelMix, x: Tensor, shifted: Tensor) -> Tensor:
    return p.value(torch.relu(p.key(torch.lerp(x, shifted, p.mix))).square())
