"""Arranges tensors with the official names for computing. Inference and training share this form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from models.rwkv7.config import Config, WeightsError, check_shapes
from models.rwkv7.products import Matrix, Product, Products, Stack, inference_product, inference_products

Dtype = Literal["fp32", "bf16", "fp16"]
Quantize = Literal["int8"]
DTYPES: dict[Dtype, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class Norm:
    weight: Tensor  # (C,)
    bias: Tensor  # (C,)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias)


@dataclass(slots=True)
class Gates:
    """sigmoid(base + f(x down) up) for v, w and a (the first layer has no v). f is tanh for w, else the identity.

    All ranks are padded with zeros to the largest one, so that one product computes all three.
    """

    base: Tensor  # (G, 1, C)
    down: Tensor  # (G, C, rank)
    up: Tensor  # (G, rank, C)

    def __call__(self, x: Tensor) -> Tensor:
        """x [G, R, C] -> [G, R, C]."""
        hidden = torch.bmm(x.to(self.down.dtype), self.down)
        hidden[-2].tanh_()
        if hidden.dtype == torch.float32:
            return torch.baddbmm(self.base, hidden, self.up).sigmoid_()
        return torch.add(self.base, torch.bmm(hidden, self.up)).sigmoid_()


@dataclass(slots=True, kw_only=True)
class TimeMix:
    mix: Tensor  # (6, 1, C): r, k, v, w, a, g
    rkv: Products
    output: Product
    gates: Gates
    g_down: Product
    g_up: Product
    k_k: Tensor  # (C,)
    k_a: Tensor  # (C,)
    k_rest: Tensor  # (C,): 1 - k_a
    r_k: Tensor  # (H, N)
    norm: Norm  # over each head


@dataclass(slots=True)
class ChannelMix:
    mix: Tensor  # (C,)
    key: Product  # (ffn, C)
    value: Product  # (C, ffn)


@dataclass(slots=True)
class Block:
    norm1: Norm
    time: TimeMix
    norm2: Norm
    channel: ChannelMix


@dataclass(slots=True, repr=False, kw_only=True)
class Weights:
    """A model that is ready to run (see `models.rwkv7.load`)."""

    config: Config
    embedding: Tensor  # (V, C)
    norm_in: Norm
    blocks: tuple[Block, ...]
    norm_out: Norm
    head: Product

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
    inference: bool = False,
) -> Weights:
    """Builds weights from tensors with the official names.

    Matrices and the embedding are converted to `dtype`; norms, mixing and decay constants stay fp32. All operations
    are differentiable, so in training gradients reach the given tensors. With `inference`, matrices get the form that
    can be read fastest; `quantize` needs it. Raises WeightsError if names or shapes do not fit.
    """
    if quantize == "int8" and torch.device(device).type != "cpu":
        raise WeightsError(f"{source}: int8 matrices run on the CPU only, not on {device}")
    config = check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, source)
    int8 = quantize == "int8"

    def vector(name: str) -> Tensor:
        return tensors[name].to(device, torch.float32).reshape(-1)

    def dense(name: str) -> Tensor:
        weight = tensors[name] if int8 else tensors[name].to(device, DTYPES[dtype])
        return weight.view(weight.shape[-2:])

    def matrix(name: str) -> Product:
        return inference_product(dense(name), int8) if inference else Matrix(dense(name).t())

    def matrices(*names: str) -> Products:
        if inference:
            return inference_products([dense(name) for name in names], int8)
        return Stack(torch.stack([dense(name).t() for name in names]))

    def norm(name: str) -> Norm:
        return Norm(vector(f"{name}.weight"), vector(f"{name}.bias"))

    def low_rank(name: str) -> Tensor:  # (C, rank) or (rank, C)
        weight = tensors[name].to(device, DTYPES[dtype])
        return weight.view(weight.shape[-2:])

    def gates(att: str, letters: str) -> Gates:
        base = torch.stack([vector(f"{att}{letter}0") for letter in letters]).unsqueeze(1)
        downs, ups = ([low_rank(f"{att}{letter}{n}") for letter in letters] for n in (1, 2))
        rank = max(len(up) for up in ups)
        down = torch.stack([F.pad(weight, (0, rank - weight.shape[1])) for weight in downs])
        up = torch.stack([F.pad(weight, (0, 0, 0, rank - len(weight))) for weight in ups])
        return Gates(base, down, up)

    def block(layer: int) -> Block:
        att, ffn = f"blocks.{layer}.att.", f"blocks.{layer}.ffn."
        k_a = vector(f"{att}k_a")
        time = TimeMix(
            mix=torch.stack([vector(f"{att}x_{letter}") for letter in "rkvwag"]).unsqueeze(1),
            rkv=matrices(*(f"{att}{name}.weight" for name in ("receptance", "key", "value"))),
            output=matrix(f"{att}output.weight"),
            gates=gates(att, "vwa" if layer else "wa"),
            g_down=Matrix(low_rank(f"{att}g1")),
            g_up=Matrix(low_rank(f"{att}g2")),
            k_k=vector(f"{att}k_k"),
            k_a=k_a,
            k_rest=1 - k_a,
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
