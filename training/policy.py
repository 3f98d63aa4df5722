"""What is tuned: the initial state of a model whose weights are frozen, or the weights themselves.

A policy reads rows from its start and gives logits; it knows nothing of objectives. Rows are padded at the right, which
changes nothing before the padding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from models import rwkv7


class Policy(Protocol):
    """`tensors` are what is trained: leaves that want gradients."""

    tensors: dict[str, Tensor]

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens [B,T] read from the start -> logits [B,T,V], differentiable in `tensors`."""


class Rwkv7State:
    """The initial state of an RWKV-7: `shifts` [L,2,C] and `wkv` [L,H,N,N], as a checkpoint holds them."""

    def __init__(self, tensors: Mapping[str, Tensor], start: Mapping[str, Tensor] | None = None) -> None:
        """From official weights, and from a state to begin with (else the empty one)."""
        self._weights = rwkv7.assemble({name: tensor.float() for name, tensor in tensors.items()})
        empty = rwkv7.new_state(self._weights.config, 1)
        given = start or {"shifts": empty.shifts[:, :, 0], "wkv": empty.wkv[:, 0]}
        self.tensors = {name: tensor.detach().clone().float().requires_grad_() for name, tensor in given.items()}

    def logits(self, tokens: Tensor) -> Tensor:
        lanes = len(tokens)
        shifts = self.tensors["shifts"].unsqueeze(2).expand(-1, -1, lanes, -1)
        wkv = self.tensors["wkv"].unsqueeze(1).expand(-1, lanes, -1, -1, -1)
        return rwkv7.forward_train(self._weights, tokens, rwkv7.State(shifts, wkv))[0]


class Rwkv7Weights:
    """All weights of an RWKV-7, read from the empty state."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = {name: tensor.detach().clone().float().requires_grad_() for name, tensor in tensors.items()}
        self._config = rwkv7.assemble(self.tensors).config

    def logits(self, tokens: Tensor) -> Tensor:
        state = rwkv7.new_state(self._config, len(tokens))
        return rwkv7.forward_train(rwkv7.assemble(self.tensors), tokens, state)[0]
