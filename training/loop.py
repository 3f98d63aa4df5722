"""Truncated back-propagation over lanes of text, for any trainee. A run can resume from any of its checkpoints.

The state of a lane is carried from window to window without gradient. So a model learns within one window how to
remember, but keeps its memory across many.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic

import torch
from safetensors import SafetensorError
from tqdm import tqdm  # type: ignore[import-untyped,unused-ignore]

from training import checkpoint
from training.data import Batch, batches
from training.schedule import schedule
from training.trainee import S, Trainee
from training.words import Split

log = logging.getLogger("training")

Stream = Callable[[Split], Iterator[Batch]]
"""Returns the text of a split as an endless stream, which is the same at each call."""


class TrainingError(Exception):
    """The run cannot start or continue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of a run. Its length is `steps`, or `minutes` if set: the schedule then follows the clock."""

    seed: int = 1
    lanes: int = 8
    window: int = 512  # tokens
    steps: int = 1000
    minutes: float | None = None
    rate: float = 3e-3  # AdamW: vectors, embedding, head, low-rank parts
    matrix_rate: float = 0.02  # Muon: the matrices
    warm_up: float = 0.01  # share of the run
    cool_down: float = 0.58  # share of the run, at its end
    clip: float = 1.0
    save_every_s: float = 180.0

    def factor(self, progress: float) -> float:
        """The factor on the learning rates at `progress` of the run. It is almost 0 at the end."""
        return schedule(progress, warm_up=self.warm_up, cool_down=self.cool_down, floor=0.01, head_start=1e-3)


@dataclass(slots=True, kw_only=True)
class Point:
    """A point on the curve of a run. Losses are in nats per byte; `held_out` is None if it was not measured."""

    step: int
    seconds: float
    tokens: int
    loss: float
    held_out: float | None = None


CHECKS = 6  # how many windows of each lane the held-out loss is measured on


def held_out_loss(trainee: Trainee[S], stream: Iterable[Batch], lanes: int) -> float:
    """Mean weighted loss (nats) of the first CHECKS batches of a stream, read from new states."""
    losses, state = list[float](), trainee.new_state(lanes)
    for batch in islice(stream, CHECKS):
        batch = batch.to(trainee.device)
        trainee.renew(state, batch.fresh)
        loss, state = trainee.measure(batch.tokens, batch.targets, batch.weights, state)
        losses.append(float(loss))
    return sum(losses) / len(losses)


class Trainer(Generic[S]):
    """One run: a trainee, its optimisers, its position in the text, the carried state and the curve of its losses."""

    def __init__(self, trainee: Trainee[S], settings: Settings, directory: Path, stream: Stream | None = None) -> None:
        self.trainee, self.settings, self.directory = trainee, settings, directory
        self.stream = stream or (lambda split: batches(settings.seed, split, settings.lanes, settings.window))
        self.step, self.seconds = 0, 0.0
        self.curve: list[Point] = []
        self.state = trainee.new_state(settings.lanes)
        matrices = [t for name, t in trainee.tensors.items() if trainee.is_matrix(name)]
        others = [t for name, t in trainee.tensors.items() if not trainee.is_matrix(name)]
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, lr=settings.matrix_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=settings.rate, weight_decay=0.0, betas=(0.9, 0.99)),
        )

    @property
    def progress(self) -> float:
        minutes = self.settings.minutes
        return self.step / self.settings.steps if minutes is None else self.seconds / 60 / minutes

    def take(self, batch: Batch) -> float:
        """Takes one step and returns the loss before it. If that is NaN or infinite, it changes no weight and raises
        TrainingError."""
        batch = batch.to(self.trainee.device)
        self.trainee.renew(self.state, batch.fresh)
        loss, state = self.trainee.loss(batch.tokens, batch.targets, batch.weights, self.state)
        found = float(loss.detach())
        if not math.isfinite(found):
            raise TrainingError(f"the loss of step {self.step + 1} is {found}: try smaller learning rates")
        loss.backward()  # type: ignore[no-untyped-call]
        self.state = state
        torch.nn.utils.clip_grad_norm_(self.trainee.tensors.values(), self.settings.clip)
        factor = self.settings.factor(self.progress)
        for optimizer, rate in zip(self.optimizers, (self.settings.matrix_rate, self.settings.rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        return found

    def run(self, stop: Callable[[], bool] = lambda: False) -> bool:
        """Trains to the end of the run, or until `stop`, which it calls before each step, returns true.

        Saves at regular intervals and at the end. Returns whether it reached the end of the run.
        """
        settings = self.settings
        stream = islice(self.stream("train"), self.step, None)
        checks = list(islice(self.stream("held_out"), CHECKS))
        before = saved = time.monotonic()
        with tqdm(
            total=None if settings.minutes else settings.steps, initial=self.step, unit="step", mininterval=1
        ) as bar:
            while self.progress < 1 and not stop():
                loss = self.take(next(stream))
                now = time.monotonic()
                self.seconds, before = self.seconds + now - before, now
                self.curve.append(
                    Point(step=self.step, seconds=round(self.seconds, 1), tokens=self._tokens, loss=round(loss, 4))
                )
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                if self.step % 20 == 0:
                    log.info("step %d, %.0f s, %.1f%%, loss %.4f", self.step, self.seconds, 100 * self.progress, loss)
                if now - saved > settings.save_every_s:
                    self._measured_and_saved(checks)
                    saved = time.monotonic()
        self._measured_and_saved(checks)
        return self.progress >= 1

    @property
    def _tokens(self) -> int:
        return self.step * self.settings.lanes * self.settings.window

    def _measured_and_saved(self, checks: list[Batch]) -> None:
        held_out = held_out_loss(self.trainee, checks, self.settings.lanes)
        if not math.isfinite(held_out):
            raise TrainingError(f"the held-out loss after step {self.step} is {held_out}: try smaller learning rates")
        if self.curve:
            self.curve[-1].held_out = round(held_out, 4)
        log.info("step %d: held-out loss %.4f", self.step, held_out)
        self.save()

    def save(self) -> None:
        """Writes `checkpoint.pth` (to resume from), `weights.safetensors` (fp32) and `losses.json`.

        Replaces each file as a whole. If one cannot be written, it keeps the previous one and raises TrainingError.
        """
        try:
            self._write()
        except (OSError, RuntimeError, SafetensorError) as error:
            detail = (str(error).strip() or repr(error)).splitlines()[0]
            raise TrainingError(f"{self.directory}: step {self.step} cannot be saved ({detail})") from error

    def _write(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        curve = [asdict(point) for point in self.curve]
        checkpoint.write(
            self.directory / checkpoint.NAME,
            of=self.trainee.describe(),
            step=self.step,
            tensors=self.trainee.tensors,
            optimizers=self.optimizers,
            more={"seconds": self.seconds, "curve": curve, "state": self.trainee.state_tensors(self.state)},
        )
        self.trainee.save(self.directory / "weights.safetensors")
        part = self.directory / "losses.part.json"
        part.write_text(json.dumps({"curve": curve}) + "\n")
        part.replace(self.directory / "losses.json")

    def resume(self) -> bool:
        """Continues from the directory's checkpoint, if any. Raises TrainingError if it belongs to another run."""
        path = self.directory / checkpoint.NAME
        if not path.exists():
            return False
        try:
            self._load(checkpoint.read(path))
        except checkpoint.CheckpointError as error:
            raise TrainingError(f"{error}: remove it, or choose another --outdir") from error
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            detail = (str(error).strip() or repr(error)).splitlines()[0]
            raise TrainingError(
                f"{path} cannot be resumed ({detail}): use the options of its first start, or choose another --outdir"
            ) from error
        log.info("resumed at step %d", self.step)
        return True

    def _load(self, content: dict[str, Any]) -> None:
        tensors, model, saved_model, more = (
            self.trainee.tensors,
            self.trainee.describe(),
            content["of"],
            content["more"],
        )
        if saved_model != model:
            differing = sorted(key for key in model if saved_model.get(key) != model[key])
            raise ValueError(f"it belongs to a model with {differing[0]} {saved_model.get(differing[0])!r}")
        if content["tensors"].keys() != tensors.keys():
            raise ValueError("it contains other tensors")
        for name, saved in content["tensors"].items():
            if saved.shape != tensors[name].shape:
                raise ValueError(f"{name} has shape {list(saved.shape)}, not {list(tensors[name].shape)}")
        state = self.trainee.state_from(more["state"])
        checkpoint.restore(content, tensors, self.optimizers)
        self.step, self.seconds = content["step"], more["seconds"]
        self.curve = [Point(**point) for point in more["curve"]]
        if self.trainee.lanes(state) == self.settings.lanes:  # otherwise the lanes start from new states
            self.state = state
