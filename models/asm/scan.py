"""The two recurrences of the layer, slots and refinement, vectorised over segments of tokens.

A slot is the mean of the values v_u weighted by exp(logit_u). Logits are relative to the segment, and `m` falls by the
ALiBi decay with each token, so positions do not appear in the sums.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from models.asm.positions import Span
from models.asm.slots import Segment, Single, Slots, Window
from models.asm.state import Memory

WriteScan = Callable[[Tensor, Tensor, Tensor, Memory, Span, int | None], tuple[Slots, Memory]]
SEGMENT = 64
"""Tokens per segment. A larger one does more arithmetic per token, but needs fewer calls."""
MAX_RISE = 30.0
"""How far a slot's largest logit may rise within one segment of the exact scan. All weights of a segment are relative
to its largest logit, so early denominators may be as small as exp(-MAX_RISE). Gradients need their squares, and small
terms of the sums still count: all of these must stay well above the smallest fp32 number."""
TINY = 1e-8


def write_scan(
    logits: Tensor, v: Tensor, decay: Tensor, memory: Memory, span: Span, chunk: int | None
) -> tuple[Slots, Memory]:
    """logits [B,H,T,K] without ALiBi, v [B,H,T,d], decay [H] per token -> the slots and the new memory.

    If `chunk` is None, this is the formula itself. A number reproduces the sums that the published weights were trained
    with: inside a write chunk, old terms are not rescaled when the largest logit rises.
    """
    if span.real is not None:
        logits = logits.masked_fill(~span.real[:, None, :, None], -torch.inf)
    elif span.width == 1 and chunk is None:
        return _step(logits.squeeze(2), v, decay, memory)
    segments: list[Segment | Single | Window] = []
    if chunk is None:
        pending = [(a, min(a + SEGMENT, span.width)) for a in range(0, span.width, SEGMENT)][::-1]
        while pending:
            first, stop = pending.pop()
            relative = _relative(logits[:, :, first:stop], decay)
            top = _top(relative, memory.m)
            if stop - first > 1 and _rise(relative, memory.m, top) > MAX_RISE:
                middle = (first + stop) // 2
                pending += [(middle, stop), (first, middle)]
                continue
            segment, memory = _exact(relative, v[:, :, first:stop], top, memory)
            segments.append(segment)
            memory = replace(memory, m=memory.m - _fallen(decay, span, first, stop))
        return Slots(segments), memory
    for first, stop, full in _chunk_segments(span, chunk):
        relative = _relative(logits[:, :, first:stop], decay)
        segment, memory = _chunked(relative, v[:, :, first:stop], memory, full)
        segments.append(segment)
        fallen = _fallen(decay, span, first, stop)
        memory = replace(memory, m=memory.m - fallen, m0=memory.m0 - fallen)
    return Slots(segments), memory


def _step(logits: Tensor, v: Tensor, decay: Tensor, old: Memory) -> tuple[Slots, Memory]:
    """One token of every row: the recurrence itself, in as few operations as possible. logits [B,H,K], v [B,H,1,d]."""
    m = old.m - decay.unsqueeze(1)
    top = torch.maximum(m, logits)
    kept, w = (m - top).exp(), (logits - top).exp()
    den = torch.addcmul(w, kept, old.den)
    num = torch.addcmul(w.unsqueeze(-1) * v, kept.unsqueeze(-1), old.num)
    return Slots([Single(num / den.unsqueeze(-1))]), replace(old, m=top, den=den, num=num)


def _relative(logits: Tensor, decay: Tensor) -> Tensor:
    """Write logits [B,H,U,K] of one segment, with ALiBi counted from the token before the segment."""
    steps = torch.arange(1, logits.shape[2] + 1, device=logits.device, dtype=logits.dtype)
    return logits + (decay.unsqueeze(1) * steps).unsqueeze(-1)


def _fallen(decay: Tensor, span: Span, first: int, stop: int) -> Tensor:
    """How much ALiBi lowers m over a segment: [1,H,1], or [B,H,1] if rows end at different columns."""
    if span.real is None:
        return (decay * (stop - first)).view(1, -1, 1)
    count = span.real[:, first:stop].sum(dim=1).to(decay.dtype)  # (B)
    return (count.unsqueeze(1) * decay).unsqueeze(-1)


@torch.no_grad()
def _top(relative: Tensor, m: Tensor) -> Tensor:
    """The largest logit of each slot [B,H,K] up to the end of the segment.

    It has no gradient: it scales num and den by the same factor.
    """
    return torch.maximum(m, relative.amax(dim=2))


@torch.no_grad()
def _rise(relative: Tensor, m: Tensor, top: Tensor) -> float:
    return float((top - torch.maximum(m, relative[:, :, 0])).nan_to_num(nan=0.0).max())


def _finite(top: Tensor) -> Tensor:
    """-inf (nothing read yet) becomes 0, so that exp(-inf - top) is 0 and not NaN."""
    return top.masked_fill(top == -torch.inf, 0.0)


def _exact(relative: Tensor, v: Tensor, top: Tensor, old: Memory) -> tuple[Segment | Single, Memory]:
    """All sums are relative to `top`. The returned memory is relative to the segment's last token."""
    reference = _finite(top)
    w = (relative - reference.unsqueeze(2)).exp()  # (B, H, U, K)
    factor = (old.m - reference).exp()  # (B, H, K)
    den = (factor * old.den).unsqueeze(2) + w.cumsum(dim=2)
    num = factor.unsqueeze(-1) * old.num + w.mT @ v  # (B, H, K, d)
    new = replace(old, m=top, den=den[:, :, -1], num=num)
    den = den.clamp_min(torch.finfo(den.dtype).tiny)  # if nothing was read, num is 0 too, so any number will do
    if w.shape[2] == 1:
        return Single(num / den.mT), new
    return Segment(w, v, den, [(factor.unsqueeze(2), old.num)]), new


def _chunked(relative: Tensor, v: Tensor, old: Memory, full: Tensor | None) -> tuple[Segment | Single, Memory]:
    """Each weight is relative to the largest logit at its own token. `full` [B]: rows whose write chunk ends here."""
    top = torch.maximum(old.m.unsqueeze(2), relative.cummax(dim=2).values)  # (B, H, U, K)
    reference = _finite(top)
    w = (relative - reference).exp()
    factor = (old.m0.unsqueeze(2) - reference).exp()  # (B, H, U, K)
    open_den = old.den.unsqueeze(2) + w.cumsum(dim=2)
    den = factor * old.den0.unsqueeze(2) + open_den
    num = old.num + w.mT @ v
    new = replace(old, m=top[:, :, -1], den=open_den[:, :, -1], num=num)
    total = factor[:, :, -1].unsqueeze(-1) * old.num0 + num
    if full is not None:
        rolls = full[:, None, None]
        new.m0 = torch.where(rolls, new.m, old.m0)
        new.den0 = torch.where(rolls, den[:, :, -1], old.den0)
        new.num0 = torch.where(rolls.unsqueeze(-1), total, old.num0)
        new.den = torch.where(rolls, 0.0, new.den)
        new.num = torch.where(rolls.unsqueeze(-1), 0.0, new.num)
    den = den.clamp_min(TINY)
    if w.shape[2] == 1:
        return Single(total / den.mT), new
    ones = torch.ones_like(factor[:, :, :1])
    return Segment(w, v, den, [(factor, old.num0), (ones, old.num)]), new


def _chunk_segments(span: Span, chunk: int) -> Iterator[tuple[int, int, Tensor | None]]:
    """Segments that end wherever a row's write chunk ends: first column, column after the last, and those rows [B]."""
    start, lengths = span.start.tolist(), span.lengths.tolist()
    ends: dict[int, list[int]] = {}  # the column after a chunk's last token -> the rows
    for row, (t, length) in enumerate(zip(start, lengths, strict=True)):
        for column in range(chunk - t % chunk, length + 1, chunk):
            ends.setdefault(column, []).append(row)
    cuts = sorted({*ends, *range(SEGMENT, span.width, SEGMENT), span.width})
    for first, stop in itertools.pairwise([0, *cuts]):
        full = None
        if stop in ends:
            full = torch.zeros(len(start), dtype=torch.bool, device=span.start.device)
            full[ends[stop]] = True
        yield first, stop, full


def refine_scan(
    q: Tensor, k: Tensor, v: Tensor, memory: Memory, segment: int, real: Tensor | None
) -> tuple[Tensor, Memory]:
    """Causal linear attention over time: q, k (both after phi), v [B,H,T,M] -> [B,H,T,M] and the new memory.

    Katharopoulos et al. 2020 (arXiv 2006.16236), equations 9 to 12. It computes `segment` tokens at once, which does
    not change the result.
    """
    if real is not None:
        k = k * real[:, None, :, None]
    found = []
    matrix, total = memory.S, memory.Z
    for first in range(0, q.shape[2], segment):
        part = slice(first, first + segment)
        q_, k_, v_ = q[:, :, part], k[:, :, part], v[:, :, part]
        sums = total.unsqueeze(2) + k_.cumsum(dim=2)  # (B, H, U, M)
        den = (q_ * sums.clamp_min(TINY)).sum(dim=-1, keepdim=True).clamp_min(TINY)
        after = matrix + k_.mT @ v_
        read = q_ @ after if q_.shape[2] == 1 else (q_ @ k_.mT).tril() @ v_ + q_ @ matrix
        found.append(read / den)
        matrix, total = after, sums[:, :, -1]
    whole = found[0] if len(found) == 1 else torch.cat(found, dim=2)
    return whole, replace(memory, S=matrix, Z=total)
