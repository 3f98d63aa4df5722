"""RWKV-7 in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from models import rwkv7
from models.rwkv7 import Config, State

Tensors = dict[str, Tensor]
LossOf = Callable[[Tensors, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Rwkv7Trainee:
    """A new RWKV-7 on the CPU. `compiled` uses torch.compile."""

    def __init__(self, config: Config, seed: int, *, compiled: bool = False) -> None:
        self.config, self.device = config, torch.device("cpu")
        self.tensors = {name: t.requires_grad_() for name, t in rwkv7.initial_tensors(config, seed).items()}
        self._loss: LossOf = torch.compile(weighted_loss, dynamic=False) if compiled else weighted_loss

    @classmethod
    def from_file(cls, path: Path, *, compiled: bool = False) -> Rwkv7Trainee:
        """Opens the model of a weights file, to train it further or to measure it."""
        trainee = cls(rwkv7.load(path).config, seed=0, compiled=compiled)
        with torch.no_grad():
            for name, tensor in rwkv7.read_tensors(path).items():
                trainee.tensors[name].copy_(tensor)
        return trainee

    def describe(self) -> dict[str, Any]:
        return asdict(self.config)

    def is_matrix(self, name: str) -> bool:
        return name.startswith("blocks.") and name.endswith(
            ("key.weight", "value.weight", "receptance.weight", "output.weight")
        )

    def new_state(self, lanes: int) -> State:
        return rwkv7.new_state(self.config, lanes)

    def renew(self, state: State, fresh: Tensor) -> None:
        state.shifts[:, :, fresh] = 0
        state.wkv[:, fresh] = 0

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        found, shifts, wkv = self._loss(self.tensors, tokens, targets, weights, state.shifts, state.wkv)
        return found, State(shifts, wkv)

    @torch.no_grad()
    def measure(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        found, shifts, wkv = weighted_loss(self.tensors, tokens, targets, weights, state.shifts, state.wkv)
        return found, State(shifts, wkv)

    def state_tensors(self, state: State) -> dict[str, Tensor]:
        return {"shifts": state.shifts, "wkv": state.wkv}

    def state_from(self, saved: Mapping[str, Tensor]) -> State:
        return State(saved["shifts"], saved["wkv"])

    def lanes(self, state: State) -> int:
        return state.wkv.shape[1]

    def save(self, path: Path) -> None:
        rwkv7.save(self.tensors, path)


def weighted_loss(
    tensors: Tensors, tokens: Tensor, targets: Tensor, weights: Tensor, shifts: Tensor, wkv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross entropy (nats) of targets [B,T], weighted with weights [B,T], and the state after the window."""
    logits, state = rwkv7.forward_train(rwkv7.assemble(tensors), tokens, State(shifts, wkv))
    return mean_loss(logits, targets, weights), state.shifts.detach(), state.wkv.detach()


def mean_loss(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """logits [B,T,V], targets [B,T], weights [B,T] -> the weighted mean of the cross entropy in nats."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    weights = weights.flatten()
    return (losses * weights).sum() / weights.sum()
