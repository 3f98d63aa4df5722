"""What is trained: the initial state of a model whose weights are frozen ("tune"), or its weights ("train").

A policy reads rows from its start and gives logits; it knows nothing of objectives. Rows are padded at the right, which
changes nothing before the padding. What it has learnt it gives back as a checkpoint holds it, so that the runtime which
serves the model goes on exactly from what training saw.
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
"""Contexts that are being sampled from: known to their own policy only."""


class PolicyError(ValueError):
    """A model that cannot be trained, or a start that is not of it."""


@dataclass(frozen=True, slots=True)
class Base:
    """The model that a policy began with, as its runtime identifies it."""

    architecture: Architecture
    layout: str
    fingerprint: str
    tokenizer: Tokenizer


@dataclass(frozen=True, slots=True)
class Start:
    """Where a policy begins. Empty `arrays`: nothing was read. Empty `weights`: those of the base model.

    `arrays` are the state as a checkpoint holds it, of one context; `weights` are those that an earlier run trained.
    """

    arrays: Arrays = field(default_factory=dict)
    weights: Arrays = field(default_factory=dict)


class Policy(Protocol):
    """B rows or lanes, T tokens, V vocabulary."""

    base: Base
    kind: Kind
    tensors: dict[str, Tensor]
    """What is trained: leaves that want gradients, fp32."""
    room: int | None
    """Tokens that can be read from the start at most; None where there is no end."""

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens [B,T] read from the start -> logits [B,T,V], differentiable in `tensors`."""

    def begin(self, lanes: int) -> Lanes:
        """Contexts to sample from, each at the start. They are of the tensors as these are now: later, begin anew."""

    def read(self, tokens: Tensor, lengths: Tensor | None, state: Lanes) -> tuple[Tensor, Lanes]:
        """tokens [B,T], of which `lengths` [B] are real (None: all) -> logits [B,V] after each lane's last, the state.

        Without gradient. The given state may be changed: it is not to be used again.
        """

    def pick(self, state: Lanes, rows: Sequence[int]) -> Lanes:
        """A copy of some lanes; a row may come twice."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The start as a checkpoint holds it: fp32, and of an ASM the position `t`, int64."""

    def weights(self) -> dict[str, NDArray[np.float32]] | None:
        """The weights that go with it, under the names of the model's own file; None where they are the base's."""


def leaves(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies that want gradients."""
    return {name: tensor.detach().clone().float().requires_grad_() for name, tensor in tensors.items()}


def checked(given: Arrays, shapes: Mapping[str, Sequence[int]], what: str) -> dict[str, Tensor]:
    """Given arrays as tensors, each of exactly its shape. Raises PolicyError; `what` names the whole of them."""
    for name in given.keys() ^ shapes.keys():
        if name in shapes:
            raise PolicyError(f"{what} lacks {name} of shape {list(shapes[name])}")
        raise PolicyError(f"{what} has {name}, which this model does not have")
    found = {}
    for name, shape in shapes.items():
        array = np.asarray(given[name])
        if array.shape != tuple(shape):
            raise PolicyError(f"{what}: {name} should have shape {list(shape)}, found {list(array.shape)}")
        if array.dtype.kind not in "fi" or np.isnan(array).any():
            raise PolicyError(f"{what}: {name} should hold numbers, found NaN or another type ({array.dtype})")
        found[name] = torch.tensor(array)
    return found
