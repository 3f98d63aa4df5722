"""Tiny Addressed State Models with random weights behind the real runtime."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from plans import plan_of

from models import asm
from workers.runtimes.asm import open_runtime
from workers.runtimes.asm.runtime import AsmRuntime

CONFIG = {
    "vocab_size": 257,
    "embed_dim": 16,
    "num_layers": 2,
    "num_heads": 2,
    "num_slots": 5,
    "slotspace_dim": 6,
    "max_seq_len": 2048,
    "tie_weights": False,  # random tied ones only repeat what was read
}
KINDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "cyclic": {"pos_mode": "cyclic", "max_seq_len": 24},
    "chunked": {"scan": "chunked:8", "mlp_bias": False, "tie_weights": True},
    "plain": {"use_slotspace_refine": False, "use_abs_pos": True},
}
"""Models of each scan and position mode; `plain` has no refinement and learnt positions."""


def asm_model(seed: int = 5, **options: Any) -> asm.ASMLanguageModel:
    """Weights so large that every part shows in the logits."""
    model = asm.build_model_from_cfg({**CONFIG, **options})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 0:
                parameter.fill_(0.3)
            elif "ln_" not in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * (1.0 if "slot_keys" in name else 1.5 / math.sqrt(parameter.shape[-1])))
    return model.eval()


def asm_file(folder: Path, name: str = "tiny.safetensors", seed: int = 5, **options: Any) -> Path:
    path = folder / name
    if not path.exists():
        asm.save_checkpoint(asm_model(seed, **options), path)
    return path


def asm_runtime(folder: Path, slots: int, kind: str = "exact", **plan: Any) -> AsmRuntime:
    return open_runtime(plan_of(asm_file(folder, f"{kind}.safetensors", **KINDS[kind]), slots, **plan))
