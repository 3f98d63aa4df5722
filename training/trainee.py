"""What the loop asks of a model that it trains, whatever its architecture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


class Trainee(Protocol[S]):
    """A model and its mathematics of training. S is the state of a number of lanes."""

    tensors: dict[str, Tensor]
    """Every trained tensor by name, a leaf that wants gradients; fp32."""
    device: torch.device

    def describe(self) -> dict[str, Any]:
        """The configuration in plain values: a checkpoint is resumed by the same model alone."""

    def is_matrix(self, name: str) -> bool:
        """Whether Muon trains it: a matrix inside the model. The rest goes to AdamW."""

    def new_state(self, lanes: int) -> S:
        """Lanes that have read nothing."""

    def renew(self, state: S, fresh: Tensor) -> None:
        """Makes the lanes where `fresh` [lanes] is true as those that have read nothing, in place."""

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: S) -> tuple[Tensor, S]:
        """Mean cross entropy (nats) of targets [B,T] under weights [B,T], and the state after them without its history.

        targets are the tokens that follow: shifted by one already.
        """

    def measure(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: S) -> tuple[Tensor, S]:
        """The same without gradient and without what belongs to training alone."""

    def state_tensors(self, state: S) -> dict[str, Tensor]:
        """The state as named tensors, for a checkpoint."""

    def state_from(self, saved: Mapping[str, Tensor]) -> S:
        """Back from `state_tensors`."""

    def lanes(self, state: S) -> int:
        """How many lanes a state holds."""

    def save(self, path: Path) -> None:
        """Writes the model (`.safetensors`, fp32) so that it can be run from the file; whole or not at all."""
