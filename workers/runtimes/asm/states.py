"""States as they are stored: named fp32 arrays of one context and its position, and checks that they fit this model.

    m, den [L,H,K]   num [L,H,K,d]   S [L,H,M,M]   Z [L,H,M]   and m0, den0, num0 of a chunked scan, all float32
    t [1]            int64, the tokens that the context has read

`models.asm.state.Memory` says what they hold. Arrays that a configuration leaves empty are left out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models import asm
from ssmprov.errors import Corrupt
from workers.context import Arrays

NEVER_NEGATIVE = ("den", "den0", "Z")


class Form:
    """The arrays of one context of one model: names, shapes and bounds, and the way into tensors and back."""

    def __init__(self, config: asm.ASMTrainConfig) -> None:
        layer = config.attention()
        self.shapes: dict[str, tuple[int, ...]] = {
            name: (config.num_layers, *shape) for name, shape in asm.memory_shapes(layer).items() if 0 not in shape
        }
        self.bytes = sum(4 * math.prod(shape) for shape in self.shapes.values()) + 8
        self.chunk = layer.chunk
        self.limit = config.max_seq_len if config.pos_mode == "absolute" else None
        self.layout = asm.layout(config)

    def check(self, arrays: Arrays) -> int:
        """The number of tokens that a state has read. Raises Corrupt if this model cannot have written it."""
        found = {name: array.shape for name, array in arrays.items()}
        if found != {**self.shapes, "t": (1,)}:
            raise Corrupt(f"this checkpoint holds {found}, but this model's state is {self.shapes} and t (1,)")
        for name, array in arrays.items():
            wanted = np.int64 if name == "t" else np.float32
            if array.dtype != wanted:
                raise Corrupt(
                    f"this checkpoint's {name} is {array.dtype}, but this model's state has {np.dtype(wanted)}"
                )
        t = int(arrays["t"][0])
        if t < 0:
            raise Corrupt(f"this checkpoint says that it has read {t} tokens")
        if self.limit is not None and t > self.limit:
            raise Corrupt(f"this checkpoint has read {t} tokens, but this model's contexts end at {self.limit}")
        self._check_values(arrays, t)
        return t

    def _check_values(self, arrays: Arrays, t: int) -> None:
        begun = {"m": t > 0, "m0": self.chunk is not None and t >= self.chunk}
        for name in self.shapes:
            array = np.asarray(arrays[name])
            if name in begun and not begun[name]:
                if not (array == -np.inf).all():
                    raise Corrupt(f"this checkpoint's {name} has values before anything can have been written to it")
            elif not np.isfinite(array).all():
                raise Corrupt(f"this checkpoint's {name} holds values that are NaN or infinite")
            elif name in NEVER_NEGATIVE and array.min() < 0:
                raise Corrupt(f"this checkpoint's {name} is a sum of weights, but below 0 in places")
            elif t == 0 and array.any():
                raise Corrupt(f"this checkpoint's {name} is not zero, but no token was read")
        if self.chunk is None and t > 0 and np.asarray(arrays["den"]).min() <= 0:
            raise Corrupt("this checkpoint's den is 0 in places, but every token read counts in every slot")

    @torch.inference_mode()
    def put(self, state: asm.State, row: int, arrays: Arrays) -> None:
        """Put checked arrays into a row; {} makes it a row that has read nothing."""
        for name, tensor in state.memory.items():
            target = tensor[:, row]
            if not arrays:
                target.fill_(-torch.inf if name in ("m", "m0") else 0.0)
            elif name not in self.shapes:
                continue
            elif target.is_cuda:
                target.copy_(torch.tensor(arrays[name]))
            else:  # on a CPU, numpy copies with a fraction of the fixed cost
                np.copyto(target.numpy(), arrays[name], casting="no")
        state.t[row] = int(arrays["t"][0]) if arrays else 0

    def take(self, state: asm.State, row: int) -> dict[str, NDArray[Any]]:
        """A copy of a row."""
        found: dict[str, NDArray[Any]] = {
            name: tensor[:, row].cpu().numpy().copy() for name, tensor in state.memory.items() if name in self.shapes
        }
        found["t"] = state.t[row : row + 1].cpu().numpy().copy()
        return found
