"""The slots after each token of a call. They offer two operations: products with a query, and weighted sums.

A slot is num / den: the weighted sum of values, divided by the sum of their weights. Over a segment of tokens, both
are matrix products of the tokens' weights, so slots are computed one by one only at the end of a segment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm


@dataclass(slots=True)
class Segment:
    """The slots after each of U tokens: (sum_{u<=t} w_u v_u + sum of carried parts) / den.

    w [B,H,U,K], v [B,H,U,d], den [B,H,U,K]; carried: pairs of a factor [B,H,U or 1,K] and numerators [B,H,K,d].
    """

    w: Tensor
    v: Tensor
    den: Tensor
    carried: list[tuple[Tensor, Tensor]]

    def dot(self, q: Tensor) -> Tensor:
        """q [B,H,U,d] -> its dot product with every slot [B,H,U,K]."""
        found = (q @ self.v.mT).tril() @ self.w
        for factor, num in self.carried:
            found = found + factor * (q @ num.mT)
        return found / self.den

    def mix(self, weights: Tensor) -> Tensor:
        """weights [B,H,U,K] -> the weighted sum of slots [B,H,U,d]."""
        share = weights / self.den
        found = (share @ self.w.mT).tril() @ self.v
        for factor, num in self.carried:
            found = found + (share * factor) @ num
        return found

    @property
    def width(self) -> int:
        return self.w.shape[2]

    def values(self) -> Tensor:
        """The slots themselves [B,H,U,K,d]. Slow: use it only to inspect them."""
        num = (self.w.unsqueeze(-1) * self.v.unsqueeze(-2)).cumsum(dim=2)
        for factor, old in self.carried:
            num = num + factor.unsqueeze(-1) * old.unsqueeze(2)
        return num / self.den.unsqueeze(-1)


@dataclass(slots=True)
class Single:
    """A segment of one token, such as a decode step: its slots [B,H,K,d] are already computed."""

    slots: Tensor
    width: int = 1

    def dot(self, q: Tensor) -> Tensor:
        return q @ self.slots.mT

    def mix(self, weights: Tensor) -> Tensor:
        return weights @ self.slots

    def values(self) -> Tensor:
        return self.slots.unsqueeze(2)


@dataclass(slots=True, kw_only=True)
class Window:
    """S segments of U tokens at once. ALiBi is a separate factor, and not part of the weights.

    w [B,H,S,U,K], v [B,H,S,U,d]; scale [B,H,S,U,K]: 1 / den; fade [1,H,1,U,U]: how much of what u wrote is left after t
    (0 above the diagonal); num [B,H,S,K,d]: the sums with which each segment begins; factor [1,H,1,U,1]: how much of
    num is left after t.
    """

    w: Tensor
    v: Tensor
    scale: Tensor
    fade: Tensor
    factor: Tensor
    num: Tensor

    def dot(self, q: Tensor) -> Tensor:
        q = q.reshape(*q.shape[:2], *self.w.shape[2:4], -1)  # (B, H, S, U, d)
        found = ((q @ self.v.mT) * self.fade) @ self.w + self.factor * (q @ self.num.mT)
        return (found * self.scale).flatten(2, 3)

    def mix(self, weights: Tensor) -> Tensor:
        share = weights.reshape(*weights.shape[:2], *self.w.shape[2:4], -1) * self.scale
        # Mask later tokens first: their products may be too large for fp32.
        later = torch.ones(self.w.shape[3], self.w.shape[3], dtype=torch.bool, device=share.device).triu(1)
        found = ((share @ self.w.mT).masked_fill(later, 0.0) * self.fade) @ self.v + (share * self.factor) @ self.num
        return found.flatten(2, 3)

    @property
    def width(self) -> int:
        return self.w.shape[2] * self.w.shape[3]

    def values(self) -> Tensor:
        one = torch.eye(self.w.shape[4], dtype=self.w.dtype, device=self.w.device)
        shape = (*self.w.shape[:2], self.width, -1)
        return torch.stack([self.mix(row.expand(*shape)) for row in one], dim=3)  # (B, H, T, K, d)


@dataclass(slots=True)
class Slots:
    """The slots after each token of a call, in segments."""

    segments: list[Segment | Single | Window]

    def dot(self, q: Tensor) -> Tensor:
        return self._each("dot", q)

    def mix(self, weights: Tensor) -> Tensor:
        return self._each("mix", weights)

    def norms(self) -> Tensor:
        """The length of every slot [B,H,T,K]."""
        return torch.cat([vector_norm(segment.values(), dim=-1) for segment in self.segments], dim=2)

    def _each(self, method: str, x: Tensor) -> Tensor:
        if len(self.segments) == 1:
            found: Tensor = getattr(self.segments[0], method)(x)
            return found
        parts = x.split_with_sizes([segment.width for segment in self.segments], dim=2)
        return torch.cat(
            [getattr(segment, method)(part) for segment, part in zip(self.segments, parts, strict=True)], dim=2
        )
