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
FILE = "slots.safetensors"
HEADS, SLOTS, LAYERS = 2, 5, 2


def slotted_toml(directory: Path) -> str:
    """A configuration of a model with random weights, large enough that every slot shows in what comes next."""
    directory.mkdir(parents=True, exist_ok=True)
    model = asm.build_model_from_cfg(
        {
            "vocab_size": 257,
            "embed_dim": 16,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "num_slots": SLOTS,
            "slotspace_dim": 6,
            "max_seq_len": 64,
            "pos_mode": "cyclic",  # so that a turn can go on for as long as a test wants
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
        for rare in (slice(33), slice(128, None)):  # it writes readable ASCII, as a trained model would
            model.lm_head.weight[rare] = 0
    asm.save_checkpoint(model, directory / FILE)
    lines = ["[[model]]", f'name = "{MODEL}"', 'runtime = "asm"', f"path = {json.dumps(str(directory / FILE))}"]
    return "\n".join([*lines, "keep_steps = 2", 'hot_bytes = "6 KiB"']) + "\n"  # old steps have to be read again


def slotted_cluster(home: Path) -> Cluster:
    """One worker of the model `slots` and one of the scripted model `talk`."""
    if not entry_points(group="ssmprov.runtimes", name="asm"):
        pytest.skip("the installed ssmprov is older than its runtime asm: install it again")
    return Cluster(home, slotted_toml(home) + scripted_toml(home)).up()
