"""Creates new tensors with the official names, and writes tensors to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.rwkv7.config import Config, expected_shapes
from models.rwkv7.layers import Dtype, Quantize, Weights, assemble


def initial_tensors(config: Config, seed: int) -> dict[str, Tensor]:
    """Initial weights for training, fp32.

    They follow the reference recipe: every block starts as the identity (its output matrices are zero), decay rates
    and token shifts vary over the channels and grow with depth, and low-rank parts start at their base value.
    """
    generator = torch.Generator().manual_seed(seed)
    channels = config.channels
    position = torch.arange(channels) / channels  # 0..1 over the channels
    tensors: dict[str, Tensor] = {}

    def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
        return (torch.rand(shape, generator=generator) * 2 - 1) * bound

    def orthogonal(shape: tuple[int, ...], gain: float) -> Tensor:
        return torch.nn.init.orthogonal_(torch.empty(shape), gain, generator=generator)

    for name, shape in expected_shapes(config).items():
        layer = int(name.split(".")[1]) if name.startswith("blocks.") else 0
        depth = layer / max(config.layers - 1, 1)  # 0..1 over the layers
        rest = 1 - layer / config.layers  # 1..almost 0
        part, leaf = ("ffn." if ".ffn." in name else ""), name.split(".")[-1 if name[-1] != "t" else -2]
        match part + leaf:
            case "emb":
                tensors[name] = uniform(shape, 0.01)
            case "head":
                tensors[name] = orthogonal(shape, 0.5)
            case "x_r" | "x_g":
                tensors[name] = 1 - position ** (0.2 * rest)
            case "x_w" | "x_a":
                tensors[name] = 1 - position ** (0.9 * rest)
            case "x_k" | "x_v":
                tensors[name] = 1 - position ** (0.7 * rest)
            case "ffn.x_k":
                tensors[name] = 1 - position ** (rest**4)
            case "w0":
                tensors[name] = -6.5 + 5 * position ** (0.85 + depth**0.5)
            case "v0":
                tensors[name] = torch.full(shape, 1.0)
            case "k_k":
                tensors[name] = torch.full(shape, 0.85)
            case "k_a":
                tensors[name] = torch.full(shape, 1.0)
            case "w2" | "a2" | "v2" | "g2":
                tensors[name] = orthogonal(shape, 1.0 if leaf == "g2" else 0.1)
            case "g1":
                tensors[name] = uniform(shape, channels**-0.5)
            case "receptance" | "value":
                tensors[name] = uniform(shape, 0.5 * channels**-0.5)
            case "key":
                tensors[name] = uniform(shape, 0.05 * channels**-0.5)
            case "ffn.key":
                tensors[name] = uniform(shape, 0.5 * channels**-0.5)
            case "ln0" | "ln1" | "ln2" | "ln_out" if name.endswith("weight"):
                tensors[name] = torch.ones(shape)
            case "ln_x" if name.endswith("weight"):
                tensors[name] = torch.full(shape, ((1 + layer) / config.layers) ** 0.7)
            case _:
                tensors[name] = torch.zeros(shape)
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def random_tensors(config: Config, seed: int) -> dict[str, Tensor]:
    """Random tensors for tests and benchmarks: none is zero, no two are equal, and activations stay near one."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in expected_shapes(config).items():
        values = torch.randn(shape, generator=generator)
        if len(shape) == 2 and not name.endswith(("r_k", "emb.weight")):
            fan_in = shape[0] if name[-1] in "12" else shape[1]
            tensors[name] = values * fan_in**-0.5
        elif name.endswith("weight") and len(shape) == 1:
            tensors[name] = 1 + 0.1 * values
        else:
            tensors[name] = 0.5 * values
    return tensors


def random_weights(
    config: Config,
    seed: int,
    *,
    dtype: Dtype = "fp32",
    device: str | torch.device = "cpu",
    quantize: Quantize | None = None,
) -> Weights:
    """`random_tensors`, assembled for inference."""
    return assemble(random_tensors(config, seed), dtype=dtype, device=device, quantize=quantize, inference=True)


def save(tensors: Mapping[str, Tensor], path: Path | str, metadata: Mapping[str, str] | None = None) -> None:
    """Writes tensors as `.safetensors` or as `.pth` (a plain dict of tensors), depending on the suffix of the path.

    `metadata` goes into the header of a `.safetensors` file. The file appears only when it is complete, so a model that
    runs from the old file is not disturbed.
    """
    path = Path(path)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == ".pth":
        torch.save(plain, part)
    else:
        save_file(plain, part, None if metadata is None else dict(metadata))
        part.chmod(0o644)  # safetensors writes files that only their owner can read
    part.replace(path)
