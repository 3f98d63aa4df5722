"""A tiny Addressed State Model for tests with real processes, and the broker that serves it beside a scripted one."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from asm_toys import CONFIG, asm_model
from cluster import Cluster, scripted_toml

from models import asm

MODEL = "slots"
FILE = "slots.safetensors"
HEADS, SLOTS, LAYERS = (CONFIG[key] for key in ("num_heads", "num_slots", "num_layers"))


def slotted_toml(directory: Path) -> str:
    """A configuration of a tiny model with random weights, written into the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    model = asm_model(pos_mode="cyclic", max_seq_len=64)  # so that a turn can go on for as long as a test wants
    with torch.no_grad():
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
