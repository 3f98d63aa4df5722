"""Matrices, and products of rows with them. Inputs and outputs are always fp32, whatever dtype the matrix has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from models.rwkv7.int8 import Int8Matrix

LARGE = 1 << 18
"""The smallest matrix, in numbers, whose product takes longer than the cost of a call."""

BLOCK = 64
"""How many rows of a large matrix are multiplied at once if the input has only a few rows."""

PACKED_FOR = 64
"""The number of input rows for which oneDNN arranges a matrix. Measured: the best, or as good as any, for 1 to 512."""


class Product(Protocol):
    """A matrix: x [R, in] -> [R, out] fp32."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Products(Protocol):
    """Several matrices of one shape, each with its own input rows: x [n, R, in] -> n times [R, out] fp32."""

    def __call__(self, x: Tensor) -> Sequence[Tensor]: ...


@dataclass(slots=True)
class Matrix:
    """A product computed in the dtype of the weight."""

    weight: Tensor  # (in, out): products of a few rows are up to twice as fast as over (out, in)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x.to(self.weight.dtype), self.weight).float()


@dataclass(slots=True)
class Stack:
    """Several matrices in one call. For small ones, or on a GPU, a call costs more than its arithmetic."""

    weight: Tensor  # (n, in, out)

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return torch.bmm(x.to(self.weight.dtype), self.weight).float().unbind()


@dataclass(slots=True)
class Each:
    """Several large matrices, with one call for each."""

    products: Sequence[Product]

    def __call__(self, x: Tensor) -> Sequence[Tensor]:
        return [product(rows) for product, rows in zip(self.products, x.unbind(), strict=True)]


@dataclass(slots=True)
class Large:
    """A large matrix in fp32 on a CPU, laid out as in its file, so workers that map the same file share its memory.

    For more than two rows, MKL first copies the whole matrix, which takes longer than the product itself. It makes no
    copy if it gets the matrix in blocks (used up to 12 rows), and takes less time if the matrix is on the left side
    (used up to 32).
    """

    weight: Tensor  # (out, in), out a multiple of BLOCK

    def __call__(self, x: Tensor) -> Tensor:
        count = len(x)
        if 2 < count <= 12:
            blocks = self.weight.view(-1, BLOCK, x.shape[1])
            found = torch.bmm(x.expand(len(blocks), -1, -1), blocks.mT)  # (out / BLOCK, R, BLOCK)
            return found.transpose(0, 1).reshape(count, -1)
        if 12 < count <= 32:
            return torch.mm(self.weight, x.t()).t().contiguous()
        return F.linear(x, self.weight)


@dataclass(slots=True)
class Packed:
    """A large matrix in bf16 or fp16 on a CPU, stored in blocks that oneDNN reads one after the other.

    For any number of rows, this takes 0.7 to 0.8 of the time without blocks. In fp32, a single row would take longer
    than with `Large`.
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
    """A matrix [out, in] in the form with the fastest products."""
    if int8:
        return Int8Matrix.from_dense(weight)
    if weight.numel() >= LARGE and weight.device.type == "cpu":
        if weight.dtype == torch.float32 and len(weight) % BLOCK == 0:
            return Large(weight.contiguous())
        if _can_pack(weight.dtype):
            return Packed.from_dense(weight)
    return Matrix(weight.t().contiguous())


def inference_products(weights: Sequence[Tensor], int8: bool) -> Products:
    """Matrices [out, in] of the same shape, in the form with the fastest products."""
    products = [inference_product(weight, int8) for weight in weights]
    matrices = [product.weight for product in products if isinstance(product, Matrix)]
    return Stack(torch.stack(matrices)) if len(matrices) == len(products) else Each(products)


def _can_pack(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float16 and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
