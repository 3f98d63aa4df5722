"""Checking the weights that a state names against the model's own before they are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from ssmprov.errors import Corrupt
from workers.context import Arrays

Shape = tuple[int, ...]


def check_tensors(weights: Arrays, shapes: Mapping[str, Shape], form: Callable[[Shape], Shape] = tuple) -> None:
    """Raise Corrupt unless the tensors have these names, shapes of the same `form`, and float32 or float16 values."""
    for name, shape in shapes.items():
        if name not in weights:
            raise Corrupt(f"these weights lack {name} of shape {list(shape)}")
        if form(weights[name].shape) != form(shape):
            found = list(weights[name].shape)
            raise Corrupt(f"these weights hold {name} of shape {found}, but this model has {list(shape)}")
    for name, array in weights.items():
        if name not in shapes:
            raise Corrupt(f"these weights hold {name}, but this model has no such tensor")
        if array.dtype not in (np.float32, np.float16):
            raise Corrupt(f"these weights hold {name} as {array.dtype}: write float32 or float16")


def read_tensors(data: bytes, check: Callable[[Arrays], None], what: str) -> dict[str, Tensor]:
    """The tensors in the bytes of a file. Raises Corrupt that begins with `what` they are if `check` rejects them."""
    try:
        tensors = load(data)
        check({name: tensor.numpy() for name, tensor in tensors.items()})
    except (Corrupt, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{what} do not fit this model: {error}") from None
    return tensors
