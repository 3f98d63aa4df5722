"""Weights that a state names, held against a model's own before anything is made of them."""

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
    """Raises Corrupt unless these are tensors of these names, of shapes of the same `form`, in float32 or float16."""
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
    """The tensors in a file's bytes. Raises Corrupt that begins with `what` they are where `check` refuses them."""
    try:
        tensors = load(data)
        check({name: tensor.numpy() for name, tensor in tensors.items()})
    except (Corrupt, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"{what} do not fit this model: {error}") from None
    return tensors
