"""RWKV-7 as a policy. Its start is `shifts` [L,2,C] and `wkv` [L,H,N,N], as in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from models import rwkv7
from models.rwkv7.config import expected_shapes
from training.policy import Base, Kind, PolicyError, Start, checked, leaves


@dataclass(slots=True)
class Rwkv7Lanes:
    """Contexts, and the weights that read in them."""

    weights: rwkv7.Weights
    state: rwkv7.State


class Rwkv7Policy:
    """Tunes the initial state, or trains every weight that the model reads."""

    room: int | None = None

    def __init__(self, base: Base, tensors: Mapping[str, Tensor], kind: Kind, start: Start | None = None) -> None:
        """Takes tensors with the official names.

        Raises WeightsError if they do not fit together, and PolicyError if the start does not fit them.
        """
        start = start or Start()
        self.base, self.kind = base, kind
        given = dict(tensors)
        if start.weights:
            shapes = {name: tensor.shape for name, tensor in tensors.items()}
            given = checked(start.weights, shapes, "the start's weights")
        self._own_weights = bool(start.weights) or kind == "train"
        self._weights = {name: tensor.detach().clone().float() for name, tensor in given.items()}
        self._config = rwkv7.assemble(self._weights).config
        empty = rwkv7.new_state(self._config, 1)
        self._start = {"shifts": empty.shifts[:, :, 0], "wkv": empty.wkv[:, 0]}
        if start.arrays:
            shapes = {name: tensor.shape for name, tensor in self._start.items()}
            self._start = {n: t.float() for n, t in checked(start.arrays, shapes, "the start's state").items()}
            if not all(bool(tensor.isfinite().all()) for tensor in self._start.values()):
                raise PolicyError("the start's state contains infinite numbers")
        self._frozen: rwkv7.Weights | None = None
        if kind == "tune":
            self.tensors = self._start = leaves(self._start)
            self._frozen = rwkv7.assemble(self._weights)
        else:
            used = expected_shapes(self._config).keys()  # a file may contain tensors that the model does not use
            self.tensors = leaves({name: tensor for name, tensor in self._weights.items() if name in used})
            self._weights |= self.tensors

    @classmethod
    def open(cls, path: Path, kind: Kind, start: Start) -> Rwkv7Policy:
        """Opens a policy on a weights file. Raises PolicyError or WeightsError."""
        tensors = rwkv7.read_tensors(path)
        config = rwkv7.assemble(tensors, source=str(path)).config
        base = Base("rwkv7", config.layout, rwkv7.fingerprint(path), rwkv7.tokenizer_for(config))
        return cls(base, tensors, kind, start)

    def logits(self, tokens: Tensor) -> Tensor:
        width = tokens.shape[1]
        if width == 1:  # without gradient, one token would take the decode path, which changes the state in place
            tokens = F.pad(tokens, (0, 1))
        weights = self._frozen or rwkv7.assemble(self._weights)
        return rwkv7.forward_train(weights, tokens, self._spread(len(tokens)))[0][:, :width]

    @torch.no_grad()
    def begin(self, lanes: int) -> Rwkv7Lanes:
        weights = rwkv7.assemble({name: t.detach() for name, t in self._weights.items()}, inference=True)
        return Rwkv7Lanes(weights, self._spread(lanes).clone())

    @torch.no_grad()
    def read(self, tokens: Tensor, lengths: Tensor | None, state: Rwkv7Lanes) -> tuple[Tensor, Rwkv7Lanes]:
        logits, new = rwkv7.forward(state.weights, tokens, lengths, state.state)
        return logits, Rwkv7Lanes(state.weights, new)

    def pick(self, state: Rwkv7Lanes, rows: Sequence[int]) -> Rwkv7Lanes:
        return Rwkv7Lanes(state.weights, state.state.pick(rows))

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: tensor.detach().numpy().copy() for name, tensor in self._start.items()}

    def weights(self) -> dict[str, NDArray[np.float32]] | None:
        if not self._own_weights:
            return None
        return {name: tensor.detach().numpy().copy() for name, tensor in self._weights.items()}

    def _spread(self, lanes: int) -> rwkv7.State:
        """The start in every lane, without a copy."""
        shifts = self._start["shifts"].unsqueeze(2).expand(-1, -1, lanes, -1)
        return rwkv7.State(shifts, self._start["wkv"].unsqueeze(1).expand(-1, lanes, -1, -1, -1))
