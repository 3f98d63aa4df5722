"""The positions of the tokens in a call: RoPE, ALiBi and padding."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from models.asm.configuration import AttentionConfig
from models.asm.errors import InputError

Tables = tuple[Tensor, Tensor]
"""Cosine and sine of a rotation, each [B,1,T,dim]; the sine is negated at even indices."""


def rope_tables(positions: Tensor, dim: int, base: float, dtype: torch.dtype) -> Tables:
    """RoPE for positions [B,T], as the published weights expect it.

    The angles are laid out in halves (0..dim/2 twice), but neighbouring pairs are rotated. This mixes two conventions,
    so it is not a true rotation. It must stay, because the weights were trained with it. Angles are never computed in
    half precision.
    """
    exact = torch.promote_types(dtype, torch.float32)
    frequencies = base ** -(torch.arange(0, dim, 2, device=positions.device, dtype=exact) / dim)
    angle = positions.unsqueeze(-1) * frequencies  # (B, T, dim/2)
    angle = torch.cat((angle, angle), dim=-1).unsqueeze(1)  # (B, 1, T, dim)
    sine = angle.sin()
    sine[..., ::2].neg_()
    return angle.cos().to(dtype), sine.to(dtype)


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """x [B,H,T,dim], rotated to the positions of the tables."""
    cosine, sine = tables
    swapped = x.view(*x.shape[:-1], -1, 2).flip(-1).view(x.shape)  # (x1, x0, x3, x2, ..)
    return torch.addcmul(x * cosine, swapped, sine)


def alibi_slopes(heads: int) -> list[float]:
    """The ALiBi slope of each head (Press et al. 2022, arXiv 2108.12409).

    For a power of two they are a geometric sequence. For another number of heads, they are the slopes of the next lower
    power of two, followed by every other slope of the next higher one.
    """
    power = 2 ** math.floor(math.log2(heads))
    start = 2.0 ** (-8.0 / power)
    slopes = [start ** (i + 1) for i in range(power)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[::2][: heads - power]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The tokens that one call reads. All layers of a model share it, so it is created once per call.

    start [B]: the number of tokens that each row has read before. lengths [B]: the number of real tokens of each row
    in this call; the rest is padding at the right. real [B,T]: True for a real token; None if there is no padding.
    counts [B,T]: the number of tokens before each token. positions [B,T]: the same for RoPE and the position embedding,
    but modulo `max_seq_len` if `pos_mode` is cyclic. slopes [H]: the ALiBi slopes.
    """

    start: Tensor
    lengths: Tensor
    width: int
    real: Tensor | None
    counts: Tensor
    positions: Tensor
    slopes: Tensor
    write_rope: Tables | None
    slot_rope: Tables | None

    @property
    def end(self) -> Tensor:
        return self.start + self.lengths

    @property
    def aligned(self) -> bool:
        """Whether all rows are at the same position."""
        return bool((self.start == self.start[0]).all())

    def last(self) -> Tensor:
        """[B,T]: True at the last real token of each row."""
        columns = torch.arange(self.width, device=self.start.device)
        return columns == (self.lengths - 1).unsqueeze(1)

    def chunk_ends(self, chunk: int | None) -> Tensor:
        """[B,T]: True at the last real token of each write chunk. In the exact scan, the whole row is one chunk."""
        return self.last() if chunk is None else self.last() | ((self.counts + 1) % chunk == 0)

    def groups(self, chunk: int | None) -> list[slice]:
        """The columns of each write chunk. The original computes its means and percentiles over these."""
        if chunk is None:
            return [slice(0, self.width)]
        if not self.aligned:
            raise InputError(
                "rows at different positions do not share write chunks: read them one at a time, or use scan='exact'"
            )
        first = chunk - int(self.start[0]) % chunk
        edges = [0, *range(first, self.width, chunk), self.width]
        return [slice(a, b) for a, b in itertools.pairwise(edges)]


def span_of(
    config: AttentionConfig,
    start: Tensor,
    width: int,
    dtype: torch.dtype,
    *,
    attention_mask: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Span:
    """The span of `width` columns after the positions `start` [B], with its tables in `dtype`.

    Raises InputError if the mask or the lengths do not fit, or if the rows become too long.
    """
    if attention_mask is not None:
        if lengths is not None:
            raise InputError("give attention_mask or lengths, not both")
        lengths = _lengths_of(attention_mask, len(start), width)
    if width < 1:
        raise InputError("a call must read at least one token, but T is 0")
    columns = torch.arange(width, device=start.device)
    real = None
    if lengths is None:
        lengths = torch.full_like(start, width)
    else:
        lengths = lengths.to(start)
        _check_lengths(lengths, len(start), width)
        if int(lengths.min()) < width:
            real = columns < lengths.unsqueeze(1)  # (B, T)
    counts = start.unsqueeze(1) + columns
    positions = counts
    limit = config.max_seq_len
    if limit is not None and config.pos_mode == "cyclic":
        positions = counts % limit
    elif limit is not None and int((start + lengths).max()) > limit:
        longest = int((start + lengths).max())
        raise InputError(f"{longest} tokens are more than max_seq_len {limit}; pos_mode='cyclic' has no such limit")
    c = config
    slopes = torch.tensor(alibi_slopes(c.num_heads), device=start.device, dtype=dtype)
    write_rope = slot_rope = None
    if c.use_rope_keys:
        write_rope = rope_tables(positions, c.head_dim, c.rope_base, dtype)
    if c.use_slotspace_refine and c.use_rope_slotspace:
        slot_rope = rope_tables(positions, c.slotspace_dim, c.rope_base_slotspace, dtype)
    return Span(
        start=start,
        lengths=lengths,
        width=width,
        real=real,
        counts=counts,
        positions=positions,
        slopes=slopes,
        write_rope=write_rope,
        slot_rope=slot_rope,
    )


def _check_lengths(lengths: Tensor, batch: int, width: int) -> None:
    if lengths.shape != (batch,):
        raise InputError(f"lengths should have shape {[batch]}, found {list(lengths.shape)}")
    if int(lengths.min()) < 0 or int(lengths.max()) > width:
        raise InputError(f"lengths must lie in 0..{width}, found {int(lengths.min())}..{int(lengths.max())}")


def _lengths_of(mask: Tensor, batch: int, width: int) -> Tensor:
    """The lengths [B] of a mask [B,T] that pads at the right only."""
    if mask.shape != (batch, width):
        raise InputError(f"attention_mask should have shape {[batch, width]}, found {list(mask.shape)}")
    real = mask != 0
    lengths = real.sum(dim=1)
    wrong = (real != (torch.arange(width, device=mask.device) < lengths.unsqueeze(1))).any(dim=1)
    if bool(wrong.any()):
        row = int(wrong.int().argmax())
        where = "at the left" if not bool(real[row, 0]) else "between tokens"
        raise InputError(f"attention_mask pads row {row} {where}: pad at the right only")
    return lengths
