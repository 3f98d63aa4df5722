"""An Addressed State Model in training."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import asm
from models.asm import ASMTrainConfig, Memory, State
from models.asm.window_scan import window_scan
from training.rwkv7_trainee import mean_loss


class ASMTrainee:
    """A new ASM in its online variant, with the exact scan.

    `strengths`: initial ALiBi strength of the lowest and of the highest layer, with a geometric sequence in between;
    None means the configuration's. `compiled` compiles each block with torch.compile, so all share one compilation.
    """

    def __init__(
        self,
        config: ASMTrainConfig,
        seed: int,
        *,
        strengths: tuple[float, float] | None = None,
        device: str | torch.device = "cpu",
        compiled: bool = False,
    ) -> None:
        torch.manual_seed(seed)
        model = asm.build_model_from_cfg(config, variant="online")
        if strengths is not None:
            _spread_recency(model, *strengths)
        self._take(model.to(device), compiled)

    @classmethod
    def from_file(cls, path: Path, *, device: str | torch.device = "cpu", compiled: bool = False) -> ASMTrainee:
        """Opens the model of a weights file, to train it further or to measure it."""
        trainee = cls.__new__(cls)
        trainee._take(asm.load_checkpoint(path, variant="online").model.to(device), compiled)
        return trainee

    def _take(self, model: asm.ASMLanguageModel, compiled: bool) -> None:
        self.model, self.device = model, model.token_emb.weight.device
        self.tensors: dict[str, Tensor] = dict(model.named_parameters())
        run = torch.compile(asm.ASMBlock.run, dynamic=False) if compiled else asm.ASMBlock.run
        for block in model.layers():
            block.attn.write_scan = window_scan
            block.run = functools.partial(run, block)  # type: ignore[method-assign]

    def describe(self) -> dict[str, Any]:
        return {**self.model.config.to_mapping(), "betas": list(self.model.config.betas)}

    def is_matrix(self, name: str) -> bool:
        return name.startswith("blocks.") and self.tensors[name].ndim == 2

    def new_state(self, lanes: int) -> State:
        return self.model.new_state(lanes)

    def renew(self, state: State, fresh: Tensor) -> None:
        rows = fresh.nonzero().flatten().tolist()
        if rows:
            state.put(rows, self.new_state(len(rows)))

    def loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        self.model.train()
        return self._loss(tokens, targets, weights, state)

    @torch.no_grad()
    def measure(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        self.model.eval()
        return self._loss(tokens, targets, weights, state)

    def state_tensors(self, state: State) -> dict[str, Tensor]:
        return {**dict(state.memory.items()), "t": state.t}

    def state_from(self, saved: Mapping[str, Tensor]) -> State:
        new = self.new_state(len(saved["t"]))
        memory = Memory(**{name: saved[name].to(tensor.device) for name, tensor in new.memory.items()})
        return State(memory, saved["t"].to(new.t.device), new.scan)

    def lanes(self, state: State) -> int:
        return state.batch

    def save(self, path: Path) -> None:
        part = path.with_name(f"{path.stem}.part{path.suffix}")
        asm.save_checkpoint(self.model, part)
        part.chmod(0o644)  # safetensors writes files that only their owner can read
        part.replace(path)

    def _loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        logits, new = self.model(tokens, state)
        return mean_loss(logits, targets, weights), new.detach()


@torch.no_grad()
def _spread_recency(model: asm.ASMLanguageModel, first: float, last: float) -> None:
    """Makes lower layers look at the most recent bytes, and higher layers further back."""
    layers = model.layers()
    for number, block in enumerate(layers):
        strength = first * (last / first) ** (number / max(len(layers) - 1, 1))
        block.attn._alibi_strength_param.fill_(math.log(math.expm1(strength)))
