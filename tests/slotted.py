"""A tiny Addressed State Model for tests with real processes, and the broker that serves it beside a scripted one."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

from cluster import Cluster, scripted_toml
from models import asm

MODEL = "slots"
HEADS, SLOTS, LAYERS = 2, 5, 2
CONTEXT_TOKENS = 512

needs_asm = pytest.mark.skipif(
    not entry_points(group="ssmprov.runtimes", name="asm"),
    reason="the installed ssmprov is older than its runtime asm: install it again",
)


def slotted_toml(directory: Path, *, workers: int = 1) -> str:
    """A configuration of a model with random weights, large enough that every slot shows in what comes next."""
    path = directory / "slots.safetensors"
    model = asm.build_model_from_cfg(
        {
            "vocab_size": 257,
            "embed_dim": 16,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "num_slots": SLOTS,
            "slotspace_dim": 6,
            "max_seq_len": CONTEXT_TOKENS,
            "tie_weights": False,
        }
    )
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(0.3)
            elif "ln_" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    directory.mkdir(parents=True, exist_ok=True)
    asm.save_checkpoint(model, path)
    return f'[[model]]\nname = "{MODEL}"\nruntime = "asm"\npath = {json.dumps(str(path))}\nworkers = {workers}\n'


def slotted_cluster(home: Path) -> Cluster:
    """One worker of the model `slots` and one of the scripted model `talk`."""
    return Cluster(home, slotted_toml(home) + scripted_toml(home)).up()
