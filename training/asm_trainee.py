"""An Addressed State Model in training."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from models import asm
from models.asm import ASMTrainConfig, Memory, State
from models.asm.window_scan import window_scan
from training.rwkv7_trainee import mean_loss


class ASMTrainee:
    """A fresh ASM in its online variant with the exact scan.

    `compiled`: blocks through torch.compile, one at a time, so that one compilation serves them all.
    """

    def __init__(
        self, config: ASMTrainConfig, seed: int, *, device: str | torch.device = "cpu", compiled: bool = False
    ) -> None:
        torch.manual_seed(seed)
        self.model = asm.build_model_from_cfg(config, variant="online").to(device)
        self.tensors: dict[str, Tensor] = dict(self.model.named_parameters())
        run = torch.compile(asm.ASMBlock.run, dynamic=False) if compiled else asm.ASMBlock.run
        for block in self.model.layers():
            block.attn.write_scan = window_scan
            block.run = functools.partial(run, block)  # type: ignore[method-assign]

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
        part.chmod(0o644)  # safetensors writes files that nobody else may read
        part.replace(path)

    def _loss(self, tokens: Tensor, targets: Tensor, weights: Tensor, state: State) -> tuple[Tensor, State]:
        logits, new = self.model(tokens, state)
        return mean_loss(logits, targets, weights), new.detach()
