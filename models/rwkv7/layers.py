"""Tensors of the official names, arranged for computing: the form that forward and training share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.rwkv7.config import Config, WeightsError, check_shapes
from models.rwkv7.int8 import Int8Matrix

Dtype = Literal["fp32", "bf16", "fp16"]
Quantize = Literal["int8"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class Matrix:
    """A matrix [out, in]; its product takes and gives fp32, and is computed in the dtype of the weight.

    Where `int8` is there, products of at most one token a context (decode) go through it.
    """

    weight: Tensor
    int8: Int8Matrix | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., in] fp32 -> [..., out] fp32."""
        if self.int8 is not None and x.dim() == 3 and x.shape[1] == 1:
            return self.int8(x)
        return F.linear(x.to(self.weight.dtype), self.weight).float()


@dataclass(slots=True)
class Norm:
    weight: Tensor  # (C,)
    bias: Tensor  # (C,)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)


@dataclass(slots=True)
class LowRank:
    """base + activation(x down) up: how w, a, v and (without base) g depend on the token."""

    base: Tensor  # (C,)
    down: Matrix  # (rank, C)
    up: Matrix  # (C, rank)


@dataclass(slots=True)
class TimeMix:
    mix: Tensor  # (6, 1, 1, C): r, w, k, v, a, g
    receptance: Matrix
    key: Matrix
    value: Matrix
    output: Matrix
    w: LowRank
    a: LowRank
    v: LowRank | None  # none in the first layer
    g: LowRank
    k_k: Tensor  # (C,)
    k_a: Tensor  # (C,)
    r_k: Tensor  # (H, N)
    norm: Norm  # over each head


@dataclass(slots=True)
class ChannelMix:
    mix: Tensor  # (C,)
    key: Matrix  # (ffn, C)
    value: Matrix  # (C, ffn)


@dataclass(slots=True)
class Block:
    norm1: Norm
    time: TimeMix
    norm2: Norm
    channel: ChannelMix


@dataclass(slots=True, repr=False)
class Weights:
    """A model ready to run: see `models.rwkv7.load`."""

    config: Config
    embedding: Tensor  # (V, C)
    norm_in: Norm
    blocks: tuple[Block, ...]
    norm_out: Norm
    head: Matrix

    @property
    def device(self) -> torch.device:
        return self.embedding.device


def assemble(
    tensors: Mapping[str, Tensor],
    *,
    dtype: Dtype = "fp32",
    device: str | torch.device = "cpu",
    quantize: Quantize | None = None,
    source: str = "tensors in memory",
) -> Weights:
    """Weights from tensors with the official names.

    Matrices and the embedding take `dtype`; norms, mixing and decay constants stay fp32. Views and differentiable
    operations only, so gradients reach the given tensors when these are leaves (training). Raises WeightsError where
    names or shapes do not fit.
    """
    if quantize == "int8" and torch.device(device).type != "cpu":
        raise WeightsError(f"{source}: int8 matrices run on the CPU, not on {device}")
    config = check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)

    def vector(name: str) -> Tensor:
        return tensors[name].to(device, torch.float32).reshape(-1)

    def matrix(name: str, transpose: bool = False) -> Matrix:
        weight = tensors[name].to(device, DTYPES[dtype])
        weight = weight.view(weight.shape[-2:])
        weight = weight.t() if transpose else weight
        int8 = Int8Matrix.from_dense(tensors[name]) if quantize == "int8" and not transpose else None
        return Matrix(weight, int8)

    def norm(name: str) -> Norm:
        return Norm(vector(f"{name}.weight"), vector(f"{name}.bias"))

    def low_rank(att: str, letter: str) -> LowRank:
        down, up = matrix(f"{att}{letter}1", transpose=True), matrix(f"{att}{letter}2", transpose=True)
        base = vector(f"{att}{letter}0") if f"{att}{letter}0" in tensors else torch.zeros(1, device=device)
        return LowRank(base, down, up)

    def block(layer: int) -> Block:
        att, ffn = f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        mix = torch.stack([vector(f"{att}x_{letter}") for letter in "rwkvag"]).view(6, 1, 1, config.channels)
        time = TimeMix(
            mix=mix,
            receptance=matrix(f"{att}receptance.weight"),
            key=matrix(f"{att}key.weight"),
            value=matrix(f"{att}value.weight"),
            output=matrix(f"{att}output.weight"),
            w=low_rank(att, "w"),
            a=low_rank(att, "a"),
            v=low_rank(att, "v") if layer else None,
            g=low_rank(att, "g"),
            k_k=vector(f"{att}k_k"),
            k_a=vector(f"{att}k_a"),
            r_k=vector(f"{att}r_k").view(config.heads, config.head_size),
            norm=norm(f"{att}ln_x"),
        )
        channel = ChannelMix(vector(f"{ffn}x_k"), matrix(f"{ffn}key.weight"), matrix(f"{ffn}value.weight"))
        return Block(norm(f"blocks.{layer}.ln1"), time, norm(f"blocks.{layer}.ln2"), channel)

    return Weights(
        config=config,
        embedding=tensors["emb.weight"].to(device, DTYPES[dtype]),
        norm_in=norm("blocks.0.ln0"),
        blocks=tuple(block(layer) for layer in range(config.layers)),
        norm_out=norm("ln_out"),
        head=matrix("head.weight"),
    )
