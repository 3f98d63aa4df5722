"""The interface that the training loop needs from a model of any architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


class Trainee(Protocol[S]):
    """A model, and how to compute its loss. S is the type of the state of several lanes."""

    tensors: dict[str, Tensor]
    """Every trained tensor by name, fp32: leaves with `requires_grad`."""
    device: torch.device

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values. A checkpoint can be resumed only with the same configuration."""

    def is_matrix(self, name: str) -> bool:
        """Whether Muon trains this tensor, a matrix inside the model. AdamW trains the rest."""

    def new_state(self, lanes: int) -> S:
        """Lanes that have not read anything yet."""

    def renew(self, state: S, fresh: Tensor) -> None:
        """Resets the lanes whose `fresh` [lanes] is true to their initial state, in place."""

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: S) -> tuple[Tensor, S]:
        """Mean cross entropy (nats) of targets [B,T], weighted with weights [B,T], and the state after them, detached.

        `targets` are the next tokens, so they are already shifted by one.
        """

    def measure(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: S) -> tuple[Tensor, S]:
        """The same loss, without gradients and without anything that is only for training, such as dropout."""

    def state_tensors(self, state: S) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def state_from(self, saved: Mapping[str, Tensor]) -> S:
        """The state that `state_tensors` turned into tensors."""

    def lanes(self, state: S) -> int:
        """The number of lanes in a state."""

    def save(self, path: Path) -> None:
        """Writes a model file that can be run (`.safetensors`, fp32). Replaces an old file as a whole."""
