"""The exact scan over a whole window at once, for training. It has no loop, and never branches on values.

The result equals that of `scan.write_scan`, except for rounding. There, ALiBi is part of the weights, so a segment is
split if they rise too far. Here, ALiBi is a separate factor, exp(-decay * age), which never exceeds one, so nothing is
split. Only the content of the logits can leave the range of fp32: those of a slot may differ by RANGE in a segment.
What a token with a lower logit wrote is lost until the segment ends.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from models.asm.positions import Span
from models.asm.scan import write_scan
from models.asm.slots import Slots, Window
from models.asm.state import Memory

SEGMENT = 32
"""Tokens per segment. The cost per token grows with it, and with the number of segments."""
RANGE = 110.0
"""How much the logits of a slot may differ within a segment. Gradients are correct within this range, too."""
HEADROOM = 30.0
"""The largest weight of a segment is exp(HEADROOM); the factor of carried sums is at most exp(2 HEADROOM)."""


def window_scan(
    logits: Tensor, v: Tensor, decay: Tensor, memory: Memory, span: Span, chunk: int | None
) -> tuple[Slots, Memory]:
    """Same arguments as `write_scan`: logits [B,H,T,K], v [B,H,T,d], decay [H].

    It passes everything but whole segments without padding on to `write_scan`.
    """
    if chunk is not None or span.real is not None or span.width % SEGMENT:
        return write_scan(logits, v, decay, memory, span, chunk)
    count = span.width // SEGMENT
    content = logits.reshape(*logits.shape[:2], count, SEGMENT, -1)  # (B, H, S, U, K)
    values = v.reshape(*v.shape[:2], count, SEGMENT, -1)  # (B, H, S, U, d)
    steps = torch.arange(SEGMENT, device=logits.device, dtype=logits.dtype)
    age = steps.unsqueeze(1) - steps  # (U, U)
    decay = decay.view(1, -1, 1, 1, 1)
    fade = (-decay * age.clamp_min(0)).exp().tril()  # (1, H, 1, U, U)
    factor = (-decay * (steps + 1).unsqueeze(1)).exp()  # (1, H, 1, U, 1)
    # Decay of segment r (axis 3) until segment s (axis 2) begins: (1, H, S, S, 1), and of the memory: (1, H, S, 1)
    numbers = torch.arange(count, device=logits.device, dtype=logits.dtype) * SEGMENT
    older = decay * (numbers.unsqueeze(1) - numbers - SEGMENT).unsqueeze(-1)
    oldest = decay.squeeze(-1) * numbers.unsqueeze(1)
    earlier = (older >= 0) & torch.ones(count, count, device=logits.device, dtype=torch.bool).tril(-1).unsqueeze(-1)

    with torch.no_grad():  # no gradients: they scale num and den by the same factor
        ended = (content - decay * (SEGMENT - 1 - steps).unsqueeze(1)).amax(dim=3)  # (B, H, S, K): at its end
        reached = (ended.unsqueeze(2) - older).masked_fill(~earlier, -torch.inf).amax(dim=3)
        reached = torch.maximum(reached, memory.m.unsqueeze(2) - oldest)
        reference = torch.maximum(content.amax(dim=3), reached - HEADROOM) - HEADROOM
    w = (content - reference.unsqueeze(3)).exp()
    last = w * fade[:, :, :, -1].unsqueeze(-1)  # the weights at the end of the segment
    lead = reference.unsqueeze(2) - reference.unsqueeze(3) - older
    carried = lead.masked_fill(~earlier, -torch.inf).exp()  # (B, H, S, S, K): segment r in segment s
    old = (memory.m.unsqueeze(2) - oldest - reference).exp()  # (B, H, S, K)
    den_in = torch.einsum("bhsrk,bhrk->bhsk", carried, last.sum(dim=3)) + old * memory.den.unsqueeze(2)
    sums = last.mT @ values  # (B, H, S, K, d)
    num_in = torch.einsum("bhsrk,bhrkd->bhskd", carried, sums) + old.unsqueeze(-1) * memory.num.unsqueeze(2)
    den = fade @ w + factor * den_in.unsqueeze(3)  # (B, H, S, U, K)
    # The gradient of a quotient contains the square of the denominator, which may leave the range of fp32. The
    # gradient of a logarithm does not.
    scale = (-den.clamp_min(torch.finfo(den.dtype).tiny).log()).exp()
    window = Window(w=w, v=values, scale=scale, fade=fade, factor=factor, num=num_in)
    with torch.no_grad():
        m = torch.maximum(ended[:, :, -1], reached[:, :, -1] - decay.flatten(2) * SEGMENT)  # (B, H, K)
        change = (reference[:, :, -1] - m).exp()  # the memory is relative to its largest logit again
    num = sums[:, :, -1] + factor[:, :, 0, -1].unsqueeze(-1) * num_in[:, :, -1]
    new = replace(memory, m=m, den=den[:, :, -1, -1] * change, num=num * change.unsqueeze(-1))
    return Slots([window]), new
