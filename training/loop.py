"""Truncated back-propagation over lanes of text, resumable at any checkpoint.

The state of a lane is carried from window to window without gradient, so that memory is trained within a window and
held across many.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from models import rwkv7
from models.rwkv7 import Config, State
from training.data import Batch, batches

log = logging.getLogger("training")

Tensors = dict[str, Tensor]
LossOf = Callable[[Tensors, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Settings:
    """A run. Its length is `steps`, or `minutes` of work where that is given: the schedule then follows the clock."""

    config: Config
    seed: int = 1
    lanes: int = 8
    window: int = 512  # tokens
    steps: int = 1000
    minutes: float | None = None
    rate: float = 3e-3  # AdamW: vectors, embedding, head, low-rank parts
    matrix_rate: float = 0.02  # Muon: the square and feed-forward matrices
    warm_up: float = 0.01  # share of the run
    cool_down: float = 0.58  # share of the run, at its end
    clip: float = 1.0
    compiled: bool = False


def schedule(progress: float, warm_up: float, cool_down: float) -> float:
    """The factor on the learning rates at 0..1 of the run: up, level, and down along a cosine to nearly nothing."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    left = (1 - min(progress, 1.0)) / cool_down
    return 1.0 if left >= 1 else 0.01 + 0.99 * (0.5 - 0.5 * math.cos(math.pi * left))


def weighted_loss(
    tensors: Tensors, tokens: Tensor, targets: Tensor, weights: Tensor, shifts: Tensor, wkv: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean cross entropy (nats) of targets [B,T] under weights [B,T], and the state after the window."""
    logits, state = rwkv7.forward_train(rwkv7.assemble(tensors), tokens, State(shifts, wkv))
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    weights = weights.flatten()
    return (losses * weights).sum() / weights.sum(), state.shifts.detach(), state.wkv.detach()


class Trainer:
    """One run: its tensors, optimisers, place in the data and carried state."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.settings, self.directory = settings, directory
        self.step, self.seconds = 0, 0.0
        self.tensors = {
            name: t.requires_grad_() for name, t in rwkv7.initial_tensors(settings.config, settings.seed).items()
        }
        self.state = rwkv7.new_state(settings.config, settings.lanes)
        matrices = [t for name, t in self.tensors.items() if _is_matrix(name)]
        others = [t for name, t in self.tensors.items() if not _is_matrix(name)]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=settings.matrix_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=settings.rate, weight_decay=0.0, betas=(0.9, 0.99)),
        )
        self.loss_of: LossOf = torch.compile(weighted_loss, dynamic=False) if settings.compiled else weighted_loss

    @property
    def progress(self) -> float:
        minutes = self.settings.minutes
        return self.step / self.settings.steps if minutes is None else self.seconds / 60 / minutes

    def take(self, batch: Batch) -> float:
        """One step; returns the loss before it."""
        self.state.shifts[:, :, batch.fresh] = 0
        self.state.wkv[:, batch.fresh] = 0
        loss, shifts, wkv = self.loss_of(
            self.tensors, batch.tokens, batch.targets, batch.weights, self.state.shifts, self.state.wkv
        )
        loss.backward()  # type: ignore[no-untyped-call]
        self.state = State(shifts, wkv)
        torch.nn.utils.clip_grad_norm_(self.tensors.values(), self.settings.clip)
        factor = schedule(self.progress, self.settings.warm_up, self.settings.cool_down)
        for optimizer, rate in zip(self.optimizers, (self.settings.matrix_rate, self.settings.rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return float(loss.detach())

    def run(self, save_every_s: float = 180.0) -> None:
        """Trains to the end of the run, with a checkpoint every so often and at the end."""
        settings = self.settings
        stream = islice(batches(settings.seed, "train", settings.lanes, settings.window), self.step, None)
        checks = list(islice(batches(settings.seed, "held_out", settings.lanes, settings.window), 6))
        before = saved = time.monotonic()
        with tqdm(
            total=None if settings.minutes else settings.steps, initial=self.step, unit="step", mininterval=10
        ) as bar:
            while self.progress < 1:
                loss = self.take(next(stream))
                now = time.monotonic()
                self.seconds, before = self.seconds + now - before, now
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if self.step % 20 == 0:
                    log.info("step %d, %.0f s, %.1f%%, loss %.4f", self.step, self.seconds, 100 * self.progress, loss)
                if now - saved > save_every_s:
                    self.save()
                    log.info("step %d: held-out loss %.4f", self.step, self.held_out_loss(iter(checks)))
                    saved = time.monotonic()
        self.save()
        log.info("step %d: held-out loss %.4f at the end", self.step, self.held_out_loss(iter(checks)))

    @torch.no_grad()
    def held_out_loss(self, stream: Iterator[Batch]) -> float:
        """Mean weighted loss (nats) of a finite stream, read from zero states."""
        losses, state = list[float](), rwkv7.new_state(self.settings.config, self.settings.lanes)
        for batch in stream:
            state.shifts[:, :, batch.fresh] = 0
            state.wkv[:, batch.fresh] = 0
            loss, state.shifts, state.wkv = weighted_loss(
                self.tensors, batch.tokens, batch.targets, batch.weights, state.shifts, state.wkv
            )
            losses.append(float(loss))
        return sum(losses) / len(losses)

    def save(self) -> None:
        """Writes `checkpoint.pth`, to go on from, and `weights.safetensors` (fp32), each whole or not at all."""
        self.directory.mkdir(parents=True, exist_ok=True)
        content = {
            "step": self.step,
            "seconds": self.seconds,
            "tensors": {name: tensor.detach() for name, tensor in self.tensors.items()},
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "shifts": self.state.shifts,
            "wkv": self.state.wkv,
        }
        part = self.directory / "part.pth"
        torch.save(content, part)
        part.replace(self.directory / "checkpoint.pth")
        rwkv7.save(self.tensors, self.directory / "weights.safetensors")

    def resume(self) -> bool:
        """Goes on from the directory's checkpoint, if there is one."""
        path = self.directory / "checkpoint.pth"
        if not path.exists():
            return False
        content = torch.load(path, weights_only=True)
        self.step, self.seconds = content["step"], content["seconds"]
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(content["tensors"][name])
        for optimizer, saved in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if content["wkv"].shape[1] == self.settings.lanes:  # otherwise the lanes begin anew
            self.state = State(content["shifts"], content["wkv"])
        log.info("resumed at step %d", self.step)
        return True


def _is_matrix(name: str) -> bool:
    return name.startswith("blocks.") and name.endswith(
        ("key.weight", "value.weight", "receptance.weight", "output.weight")
    )
