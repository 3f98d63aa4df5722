"""Matrices and how rows of numbers are multiplied with them: inputs and outputs are fp32, whatever the matrix holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from models.rwkv7.int8 import Int8Matrix

PACKED_FROM = 1 << 18
"""Numbers in a matrix from which oneDNN is worth its fixed cost of some 15 microseconds a call."""

PACKED_FOR = 64
"""The rows that oneDNN lays a matrix out for: measured best, or as good as any, at 1 to 512."""


class Product(Protocol):
    """A matrix: x [R, in] -> [R, out] fp32."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Products(Protocol):
    """Several matrices of one shape, each with rows of its own: x [n, R, in] -> n times [R, out] fp32."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(slots=True)
class Matrix:
    """Computed in the dtype of the weight."""

    weight: Tensor  # (in, out): products of a few rows are up to twice as fast as over (out, in)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x.to(self.weight.dtype), self.weight).float()


@dataclass(slots=True)
class Stack:
    """Several `Matrix` in one call: where they are small, or on a GPU, a call costs more than its arithmetic."""

    weight: Tensor  # (n, in, out)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return torch.bmm(x.to(self.weight.dtype), self.weight).float().unbind()


@dataclass(slots=True)
class Each:
    """Several large matrices, one call after the other."""

    products: Sequence[Product]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return [product(rows) for product, rows in zip(self.products, x.unbind(), strict=True)]


@dataclass(slots=True)
class Packed:
    """A large matrix on the CPU in the blocks that oneDNN reads one after the other. For inference only.

    A plain product of 4 to 32 rows copies the matrix into such blocks first, in every call.
    """

    blocks: Tensor
    dtype: torch.dtype

    @classmethod
    def from_dense(cls, weight: Tensor) -> Packed:
        """weight [out, in]."""
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight, PACKED_FOR), weight.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(self.dtype), self.blocks, None, "none", [], "")
        return found.float()


def inference_product(weight: Tensor, int8: bool) -> Product:
    """A matrix [out, in] in the form whose products are the fastest; it shares no memory with the weight."""
    if int8:
        return Int8Matrix.from_dense(weight)
    if weight.numel() >= PACKED_FROM and _can_pack(weight):
        return Packed.from_dense(weight)
    return Matrix(weight.t().contiguous())


def inference_products(weights: Sequence[Tensor], int8: bool) -> Products:
    """Matrices [out, in] of one shape."""
    products = [inference_product(weight, int8) for weight in weights]
    matrices = [product.weight for product in products if isinstance(product, Matrix)]
    return Stack(torch.stack(matrices)) if len(matrices) == len(products) else Each(products)


def _can_pack(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if weight.dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if weight.dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
