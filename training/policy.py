"""A policy trains the initial state of a model whose weights are frozen ("tune"), or the weights ("train").

A policy reads rows from its start and returns logits. It does not know objectives. Rows are padded at the right, which
does not affect anything before the padding. It returns the learnt start in the format of a checkpoint, so the runtime
that serves the model continues exactly from what training used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.rwkv7 import Tokenizer

Architecture = Literal["rwkv7", "asm"]
Kind = Literal["tune", "train"]
Arrays = Mapping[str, NDArray[Any]]

Lanes = Any
"""The contexts of a sampling run. Only their own policy knows what is in them."""


class PolicyError(ValueError):
    """The model cannot be trained, or the start does not fit it."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a policy starts with, identified as its runtime does."""

    architecture: Architecture
    layout: str
    fingerprint: str
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Start:
    """Where a policy starts.

    `arrays` is the state of one context in the format of a checkpoint; empty means that nothing has been read.
    `weights` are the result of an earlier run; empty means those of the base model.
    """

    arrays: Arrays = field(default_factory=dict)
    weights: Arrays = field(default_factory=dict)


class Policy(Protocol):
    """A model to train. Letters in shapes: B rows or lanes, T tokens, V vocabulary."""

    base: Base
    kind: Kind
    tensors: dict[str, Tensor]
    """The tensors to train, fp32: leaves with `requires_grad`."""
    room: int | None
    """How many tokens can be read from the start at most; None if there is no limit."""

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens [B,T] read from the start -> logits [B,T,V], differentiable in `tensors`."""

    def begin(self, lanes: int) -> Lanes:
        """Contexts to sample from, each at the start. If the tensors change later, call this again."""

    def read(self, tokens: Tensor, lengths: Tensor | None, state: Lanes) -> tuple[Tensor, Lanes]:
        """tokens [B,T], of which `lengths` [B] are real (None: all) -> logits [B,V] after each lane's last, the state.

        It computes no gradients. It may change the given state, so do not use that again.
        """

    def pick(self, state: Lanes, rows: Sequence[int]) -> Lanes:
        """A copy of some lanes. A row may appear twice."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The start in the format of a checkpoint: fp32 arrays, and for an ASM also the position `t`, int64."""

    def weights(self) -> dict[str, NDArray[np.float32]] | None:
        """The trained weights, named as in the model's file; None if they are still those of the base."""


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that collect gradients."""
    return {name: tensor.detach().clone().float().requires_grad_() for name, tensor in tensors.items()}


def checked(given: Arrays, shapes: Mapping[str, Sequence[int]], what: str) -> dict[str, Tensor]:
    """The given arrays as tensors, with checked names and shapes. Raises PolicyError, which calls them `what`."""
    for name in given.keys() ^ shapes.keys():
        if name in shapes:
            raise PolicyError(f"{what}: {name} of shape {list(shapes[name])} is missing")
        raise PolicyError(f"{what}: this model has no {name}")
    found = {}
    for name, shape in shapes.items():
        array = np.asarray(given[name])
        if array.shape != tuple(shape):
            raise PolicyError(f"{what}: {name} should have shape {list(shape)}, found {list(array.shape)}")
        if array.dtype.kind not in "fi" or np.isnan(array).any():
            raise PolicyError(f"{what}: {name} should hold numbers, found NaN or another type ({array.dtype})")
        found[name] = torch.tensor(array)
    return found
