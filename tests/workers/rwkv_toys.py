"""A tiny RWKV-7 with random weights behind the real runtime."""

from __future__ import annotations

from pathlib import Path

import torch

from models import rwkv7
from workers.runtimes.base import Plan
from workers.runtimes.rwkv import Options
from workers.runtimes.rwkv.runtime import Model, RwkvRuntime

CONFIG = rwkv7.Config(
    layers=2, channels=64, head_size=32, vocabulary=257, ffn=128, rank_w=8, rank_a=8, rank_v=8, rank_g=8
)
FINGERPRINT = "5" * 64


def rwkv_runtime(slots: int, seed: int = 5) -> RwkvRuntime:
    torch.set_num_threads(1)  # as `open_runtime` does
    weights = rwkv7.random_weights(CONFIG, seed=seed)
    return RwkvRuntime(Model(weights, weights), FINGERPRINT, Plan(path=Path("random"), slots=slots), Options())


def rwkv_file(folder: Path, name: str = "tiny.pth", seed: int = 5) -> Path:
    path = folder / name
    rwkv7.save(rwkv7.random_tensors(CONFIG, seed=seed), path)
    return path
