"""An Addressed State Model as a policy. It computes as in serving: without dropout, and with the runtime's scan.

Some arrays can never be the result of reading, and a runtime rejects them as a state. So training does not tune the
arrays directly, but unbounded numbers from which it computes them:

    exact scan     m      logarithm of a slot's total weight: how long it resists what is written later
                   num    the content of the slot; den is 1 (only exp(m) den and num / den count)
    chunked scan   num, log_den   sums of the open write chunk, and num0, log_den0 of the finished ones if there are
                   any; m and m0 do not change
    both           S, log_Z       the refinement

A context that has not read anything has empty slots and position 0, so its start is the state after one line break. The
position `t` is always that of the start.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import asm
from models.mini import ByteTokenizer
from models.rwkv7 import WorldTokenizer
from training.policy import Base, Kind, PolicyError, Start, checked, leaves

FIRST = "\n"
"""What a tuned start has read if it has read nothing else."""
TINY = 1e-8
"""The smallest sum of weights: the model replaces smaller ones by it."""


@dataclass(slots=True)
class AsmLanes:
    """Contexts, and the model that reads in them."""

    model: asm.ASMLanguageModel
    stepper: asm.Stepper | None
    state: asm.State


class AsmPolicy:
    """Tunes the initial state, or trains all weights."""

    def __init__(self, base: Base, model: asm.ASMLanguageModel, kind: Kind, start: Start | None = None) -> None:
        """Takes over the model and changes it. Raises PolicyError if the start does not fit the model."""
        start = start or Start()
        self.base, self.kind = base, kind
        self._model = model.eval().requires_grad_(requires_grad=kind == "train")
        self._own_weights = bool(start.weights) or kind == "train"
        if start.weights:
            _take(model, start.weights)
        self._start = _start_of(model, start)
        self.tensors: dict[str, Tensor] = {}
        if kind == "tune" and not int(self._start["t"]):
            self._start = self._after(base.tokenizer.encode(FIRST))
        limit = model.config.max_seq_len if model.config.pos_mode == "absolute" else None
        self.room = None if limit is None else limit - int(self._start["t"])
        self.tensors = dict(model.named_parameters()) if kind == "train" else leaves(self._free())
        self._sampled: tuple[asm.ASMLanguageModel, asm.Stepper | None] | None = None

    @classmethod
    def open(
        cls, path: Path, kind: Kind, start: Start, *, scan: str | None = None, pos_mode: str | None = None
    ) -> AsmPolicy:
        """Opens a policy on a checkpoint file. Raises PolicyError or ASMError."""
        model = asm.load_checkpoint(path, scan=scan, pos_mode=pos_mode, variant="online").model
        spelling = asm.spelling(model.config)
        if spelling is None:
            raise PolicyError(f"{path}: no tokenizer has this model's vocabulary of {model.config.vocab_size} tokens")
        tokenizer = ByteTokenizer() if spelling == "bytes" else WorldTokenizer()
        base = Base("asm", asm.layout(model.config), asm.fingerprint(model, spelling), tokenizer)
        return cls(base, model, kind, start)

    def logits(self, tokens: Tensor) -> Tensor:
        found: Tensor = self._model(tokens, self._spread(len(tokens)))[0]
        return found

    @torch.no_grad()
    def begin(self, lanes: int) -> AsmLanes:
        if self._sampled is None or self.kind == "train":
            model = copy.deepcopy(self._model)  # a stepper rearranges the weights and stores products of them
            self._sampled = model, asm.Stepper(model) if asm.Stepper.fits(model) else None
        state = self._spread(lanes)
        return AsmLanes(*self._sampled, asm.State(state.memory.map(Tensor.contiguous), state.t, state.scan))

    @torch.no_grad()
    def read(self, tokens: Tensor, lengths: Tensor | None, state: AsmLanes) -> tuple[Tensor, AsmLanes]:
        if tokens.shape[1] == 1 and state.stepper is not None:
            return state.stepper.step(tokens[:, 0], state.state), state
        logits, new, *_ = state.model(tokens, state.state, lengths=lengths, last_logits=True)
        return logits, AsmLanes(state.model, state.stepper, new)

    def pick(self, state: AsmLanes, rows: Sequence[int]) -> AsmLanes:
        return AsmLanes(state.model, state.stepper, state.state.pick(rows))

    def arrays(self) -> dict[str, NDArray[Any]]:
        found = {name: tensor for name, tensor in self._memory().items() if tensor.numel()}
        found["t"] = self._start["t"].view(1)
        return {name: tensor.detach().numpy().copy() for name, tensor in found.items()}

    def weights(self) -> dict[str, NDArray[np.float32]] | None:
        if not self._own_weights:
            return None
        return {name: tensor.detach().numpy().copy() for name, tensor in self._model.named_parameters()}

    @torch.no_grad()
    def _after(self, tokens: list[int]) -> dict[str, Tensor]:
        """The start after these tokens."""
        _, state, *_ = self._model(torch.tensor([tokens]), self._spread(1))
        return {name: tensor[:, 0] for name, tensor in state.memory.items()} | {"t": state.t[0]}

    def _free(self) -> dict[str, Tensor]:
        """The tuned arrays of the start, as unbounded numbers."""
        start, config = self._start, self._model.config.attention()
        free = {"S": start["S"], "log_Z": start["Z"].clamp_min(TINY).log()}
        if config.chunk is None:
            free |= {"m": start["m"] + start["den"].log(), "num": start["num"] / start["den"].unsqueeze(-1)}
        else:
            parts = ("", "0") if int(start["t"]) >= config.chunk else ("",)
            for part in parts:
                free |= {f"num{part}": start[f"num{part}"]}
                free |= {f"log_den{part}": start[f"den{part}"].clamp_min(TINY).log()}
        return {name: tensor for name, tensor in free.items() if tensor.numel()}

    def _memory(self) -> dict[str, Tensor]:
        """The start's arrays [L,...]; the tuned ones are computed from the unbounded numbers."""
        found = {name: tensor for name, tensor in self._start.items() if name != "t"}
        if self.kind == "train":
            return found
        if "m" in self.tensors:
            found["den"] = torch.ones_like(found["den"])
        for name, tensor in self.tensors.items():
            found[name.removeprefix("log_")] = tensor.exp() if name.startswith("log_") else tensor
        return found

    def _spread(self, lanes: int) -> asm.State:
        """The start in every lane, without a copy."""
        spread = {name: t.unsqueeze(1).expand(-1, lanes, *t.shape[1:]) for name, t in self._memory().items()}
        return asm.State(asm.Memory(**spread), self._start["t"].repeat(lanes), self._model.config.attention().scan_name)


def _start_of(model: asm.ASMLanguageModel, start: Start) -> dict[str, Tensor]:
    """All arrays of the start [L,...], including the empty ones, and `t` []. Raises PolicyError."""
    empty = model.new_state(1)
    found = {name: tensor[:, 0] for name, tensor in empty.memory.items()} | {"t": empty.t[0]}
    if start.arrays:
        shapes = {name: (1,) if name == "t" else tuple(t.shape) for name, t in found.items() if t.numel()}
        given = checked(start.arrays, shapes, "the start's state")
        found |= {name: tensor.float() for name, tensor in given.items()}
        found["t"] = given["t"].to(torch.int64)[0]
        if int(found["t"]) and not all(
            bool(tensor.isfinite().all()) for name, tensor in given.items() if name not in ("m0", "t")
        ):
            raise PolicyError("the start's state contains infinite numbers")
    return found


@torch.no_grad()
def _take(model: asm.ASMLanguageModel, given: Mapping[str, NDArray[Any]]) -> None:
    parameters = dict(model.named_parameters())
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    for name, tensor in checked(given, shapes, "the start's weights").items():
        parameters[name].copy_(tensor)
