"""One interface for measuring trained models of any architecture: contexts read tokens and return logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from models import asm, rwkv7
from models.rwkv7 import Weights
from training.loop import TrainingError

Contexts = Any
"""The state of a batch of contexts. Only its own reader knows what is in it."""


class Reader(Protocol):
    """A model with the tokens of ByteTokenizer."""

    architecture: str
    parameters: int
    state_bytes: int
    """The size of one context's state, however much it has read."""

    def start(self, batch: int) -> Contexts:
        """Contexts that have not read anything yet."""

    def read(self, tokens: Tensor, state: Contexts, lengths: Tensor | None = None) -> tuple[Tensor, Contexts]:
        """tokens [B,T], of which `lengths` [B] are real (None: all) -> logits [B,V] after each row's last, the state.

        It may change the given state, so do not use that again.
        """

    def pick(self, state: Contexts, rows: Sequence[int]) -> Contexts:
        """A copy of some contexts. A row may appear twice."""


class Rwkv7Reader:
    architecture = "rwkv7"

    def __init__(self, weights: Weights, parameters: int = 0) -> None:
        self.weights, self.parameters = weights, parameters
        state = rwkv7.new_state(weights.config, 1)
        self.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in (state.shifts, state.wkv))

    def start(self, batch: int) -> rwkv7.State:
        return rwkv7.new_state(self.weights.config, batch)

    def read(self, tokens: Tensor, state: rwkv7.State, lengths: Tensor | None = None) -> tuple[Tensor, rwkv7.State]:
        return rwkv7.forward(self.weights, tokens, lengths, state)

    def pick(self, state: rwkv7.State, rows: Sequence[int]) -> rwkv7.State:
        return state.pick(list(rows))


class ASMReader:
    architecture = "asm"

    def __init__(self, model: asm.ASMLanguageModel) -> None:
        self.model = model.eval()
        self.stepper = asm.Stepper(model) if asm.Stepper.fits(model) else None
        self.parameters = sum(tensor.numel() for tensor in model.parameters())
        state = model.new_state(1)
        tensors = (*(tensor for _, tensor in state.memory.items()), state.t)
        self.state_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def start(self, batch: int) -> asm.State:
        return self.model.new_state(batch)

    @torch.no_grad()
    def read(self, tokens: Tensor, state: asm.State, lengths: Tensor | None = None) -> tuple[Tensor, asm.State]:
        if tokens.shape[1] == 1 and lengths is None and self.stepper is not None:
            return self.stepper.step(tokens.squeeze(1), state), state
        logits, new, *_ = self.model(tokens, state, lengths=lengths, last_logits=True)
        return logits, new

    def pick(self, state: asm.State, rows: Sequence[int]) -> asm.State:
        return state.pick(rows)


def open_reader(path: Path) -> Reader:
    """Opens a model file of either architecture, which its tensors show. Raises TrainingError, which names the file."""
    try:
        tensors, _ = asm.read_checkpoint(path)
        if any(".att." in name for name in tensors):
            return Rwkv7Reader(rwkv7.load(path), sum(tensor.numel() for tensor in tensors.values()))
        model = asm.load_checkpoint(path, variant="online").model
    except (asm.ASMError, rwkv7.WeightsError) as error:
        raise TrainingError(str(error)) from error
    if model.config.vocab_size != 257:
        raise TrainingError(
            f"{path}: its vocabulary has {model.config.vocab_size} tokens, but only models over bytes (257 tokens) can "
            "be measured"
        )
    return ASMReader(model)
