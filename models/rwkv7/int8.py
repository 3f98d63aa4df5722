"""Dynamic int8 products for decode. Weights are quantised once, per output channel; inputs at each call, per row.

oneDNN computes the product on weights that are packed once. The speed of decode is limited by the bytes that it reads,
and int8 reads a quarter of the bytes of fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 127
ZERO = 128  # inputs are stored unsigned


@dataclass(slots=True)
class Int8Matrix:
    """A matrix [out, in], quantised symmetrically to int8 with a scale per output channel. CPU only."""

    packed: Tensor
    scale: Tensor  # (out,) fp32
    zero: Tensor  # (out,) int64, all zero

    @classmethod
    def from_dense(cls, weight: Tensor) -> Int8Matrix:
        weight = weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp(min=1e-12) / LARGEST
        rounded = (weight / scale.unsqueeze(1)).round().to(torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(rounded, None)
        return cls(packed, scale, torch.zeros(len(scale), dtype=torch.int64))

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] fp32 -> [..., out] fp32."""
        rows = x.reshape(-1, x.shape[-1])
        scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
        rounded = (rows / scale).round_().add_(ZERO).to(torch.uint8)
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, ZERO, self.packed, self.scale, self.zero, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return product.mul_(scale).view(*x.shape[:-1], -1)
