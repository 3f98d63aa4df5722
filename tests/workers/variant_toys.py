"""Tiny models of both runtimes that read variants, each with the weights of another model of its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from asm_toys import asm_file
from numpy.typing import NDArray
from plans import plan_of
from rwkv_toys import rwkv_file
from safetensors.numpy import load_file
from safetensors.torch import save_file

from models import rwkv7
from ssmprov.statefile import weights_id
from workers.checkpoints.weights import WeightFiles
from workers.runtimes.asm import open_runtime as open_asm
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Plan
from workers.runtimes.rwkv import open_runtime as open_rwkv
from workers.runtimes.rwkv.runtime import RwkvRuntime

Weights = dict[str, NDArray[Any]]
Served = RwkvRuntime | AsmRuntime


@dataclass(frozen=True)
class House:
    """Models of one kind in files, by seed; that of seed 5 is served, and all others are variants of it."""

    folder: Path
    file: Callable[[int], Path]
    open: Callable[[Plan], Served]

    @property
    def weights(self) -> WeightFiles:
        return WeightFiles(self.folder / "weights")

    def served(self, slots: int = 4, seed: int = 5, **plan: Any) -> Served:
        """The model of a seed by itself, with variants within reach."""
        return self.open(plan_of(self.file(seed), slots, weights=self.folder / "weights", **plan))

    def tensors(self, seed: int) -> Weights:
        """What a state file would hold."""
        path = self.file(seed)
        if path.suffix == ".pth":
            save_file(rwkv7.read_tensors(path), path.with_suffix(".safetensors"))
        return load_file(path.with_suffix(".safetensors"))

    def put(self, seed: int) -> NDArray[np.uint8]:
        """The weights of a seed in the folder; the array that names them."""
        data, number = weights_id(self.tensors(seed))
        self.weights.write(number.hex(), data)
        return np.frombuffer(number, np.uint8)


def rwkv_house(folder: Path) -> House:
    return House(folder, lambda seed: rwkv_file(folder, f"{seed}.pth", seed), open_rwkv)


def asm_house(folder: Path) -> House:
    def file(seed: int) -> Path:
        return asm_file(folder, f"{seed}.safetensors", seed, tie_weights=True)

    return House(folder, file, open_asm)


HOUSES: dict[str, Callable[[Path], House]] = {"rwkv": rwkv_house, "asm": asm_house}
