"""A context between two turns: a model's whole recurrent state, and what is needed to continue it exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

WINDOW = 64
"""Tokens in the penalty window: the last ones that the context has read."""

Arrays = Mapping[str, NDArray[np.generic]]

WEIGHTS = "weights"
"""The array that names the weights to read a state with: uint8 [32], the SHA-256 of their file."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which model a state belongs to: a loaded checkpoint must agree in everything except the dtype."""

    fingerprint: str  # sha256 of weights, tokenizer and architecture, hex
    architecture: str  # such as "rwkv7"
    layout: str  # the state's arrays and shapes, such as "rwkv7 L4 C128 H2 N64"
    dtype: str  # compute dtype; a state of another one loads, but is marked inexact


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An immutable state, shared by names, forks and threads. Nobody writes into its arrays."""

    arrays: Arrays  # the runtime's state by name; {} is the empty context
    logits: NDArray[np.float32] | None  # [V] the logits after the last token; None if nothing was read
    window: NDArray[np.int32]  # [<= WINDOW] the last tokens read
    tokens: int = 0  # read since the root
    seed: int | None = None  # of the generator that continues; its position is `tokens`
    parent: str = ""  # object hash of the previous checkpoint, '' at a root
    object: str = ""  # its own object hash once committed
    exact: bool = True  # False once another compute dtype or another program has touched the lineage

    @property
    def state_bytes(self) -> int:
        logits = 0 if self.logits is None else self.logits.nbytes
        return sum(array.nbytes for array in self.arrays.values()) + logits + self.window.nbytes

    def committed(self, object_id: str) -> Snapshot:
        return replace(self, object=object_id)


def empty() -> Snapshot:
    """The context that has read nothing."""
    return Snapshot(arrays={}, logits=None, window=np.zeros(0, np.int32))


@dataclass(frozen=True, slots=True)
class Read:
    """What one step read: its token ids, and exactly the text that they spell."""

    tokens: NDArray[np.int32]
    text: bytes
    settings: Mapping[str, float] = field(default_factory=dict)
    kind: str = "turn"  # turn, import, replay
