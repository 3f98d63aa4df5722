"""Tiny policies with random weights, of each architecture and kind."""

from __future__ import annotations

from pathlib import Path

import torch
from asm_toys import KINDS, asm_file

from models import rwkv7
from models.mini import ByteTokenizer
from training.opening import open_policy
from training.policy import Base, Kind, Policy, Start

TINY = rwkv7.Config(layers=2, channels=16, head_size=8, vocabulary=257, ffn=32, rank_w=4, rank_a=4, rank_v=4, rank_g=4)
BASE = Base("rwkv7", TINY.layout, "of no file", ByteTokenizer())


def rwkv7_file(folder: Path) -> Path:
    path = folder / "rwkv7.safetensors"
    if not path.exists():
        rwkv7.save(rwkv7.random_tensors(TINY, 3), path)
    return path


MODELS = ("rwkv7", *KINDS)


def toy_file(folder: Path, model: str) -> Path:
    """The weights of a model, an RWKV-7 or an ASM of a kind."""
    return rwkv7_file(folder) if model == "rwkv7" else asm_file(folder, f"{model}.safetensors", **KINDS[model])


def toy(folder: Path, model: str, kind: Kind, start: Start | None = None) -> Policy:
    return open_policy("rwkv7" if model == "rwkv7" else "asm", toy_file(folder, model), kind, start)


def stir(policy: Policy, by: float = 0.3, seed: int = 1) -> None:
    """Every trained tensor moved a little, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in policy.tensors.values():
            tensor += by * torch.randn(tensor.shape, generator=generator)
