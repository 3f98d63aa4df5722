"""Training on rows: optimises an objective over a policy's tensors. It can resume from any checkpoint and stop early.

A checkpoint holds the tensors, the optimiser, the step, the curve and the objective's memory. Batches depend only on
step and seed. So a run that was killed continues from its last checkpoint, and gives the same result as one that never
stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from training import checkpoint
from training.policy import Policy
from training.schedule import schedule

FLOOR = 0.1
"""The share of the learning rate that is left at the end of a run."""

SMOOTH = 0.9


class FitError(ValueError):
    """The run cannot start or continue: NaN or infinite numbers, a checkpoint of another run, a full disk."""


class OfAnotherRun(FitError):
    """The checkpoint belongs to another run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How long to train, and how fast.

    `patience`: stop after this many checks without a better validation loss (0: never). `whole`: how many steps belong
    together, because they learn from the same batch of answers, sampled at the first of them. A run is saved, checked
    and stopped only between such groups.
    """

    steps: int
    rate: float
    warm_up: int = 10
    clip: float = 1.0
    check_every: int = 20
    patience: int = 0
    save_every_s: float = 30.0
    whole: int = 1

    def __post_init__(self) -> None:
        if self.whole < 1 or self.steps % self.whole:
            raise FitError(f"{self.steps} steps is not a multiple of {self.whole}, the steps that share a batch")

    def factor(self, step: int) -> float:
        """The factor on the learning rate: rises to 1 over `warm_up` steps, then falls along a cosine to a tenth."""
        return schedule(
            step / self.steps,
            warm_up=(self.warm_up - 1) / self.steps,
            cool_down=max(1, self.steps - self.warm_up) / self.steps,
            floor=FLOOR,
            head_start=1 / self.steps,
        )


@dataclass(slots=True)
class Curve:
    """The objective's values as (step, value): of training, smoothed, and of validation.

    Both are in nats or in the objective's own unit. Lower is better.
    """

    training: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    smoothed: float | None = None

    def take(self, step: int, loss: float) -> None:
        self.smoothed = loss if self.smoothed is None else SMOOTH * self.smoothed + (1 - SMOOTH) * loss
        self.training.append((step, loss))

    @property
    def trend(self) -> float:
        """How much the loss fell, from the mean of its first tenth to that of its last. Positive is an improvement."""
        tenth = max(1, len(self.training) // 10)
        losses = [loss for _, loss in self.training]
        if not losses:
            return 0.0
        return sum(losses[:tenth]) / tenth - sum(losses[-tenth:]) / tenth


@dataclass(slots=True)
class Fitted:
    """How a run ended. `stopped` is "steps", "early" or "asked"."""

    step: int
    curve: Curve
    stopped: str


@dataclass(frozen=True, slots=True)
class Taken:
    """The loss of a step, differentiable in the policy's tensors, and its value for the curve (lower is better)."""

    loss: Tensor
    value: float


Loss = Callable[[int], Taken]
"""The loss of a step. It is the same for the same step, tensors and memory of the objective."""


@runtime_checkable
class Remembers(Protocol):
    """A loss with a memory that checkpoints save: tensors, numbers, text, and lists and dicts of them."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, saved: dict[str, Any]) -> None: ...


Check = Callable[[], float]
"""The validation loss."""


def fit(
    policy: Policy,
    loss_of: Loss,
    settings: Fit,
    directory: Path,
    *,
    identity: str,
    check: Check | None = None,
    asked_to_stop: Callable[[], bool] = lambda: False,
    said: Callable[[int, float], None] | None = None,
) -> Fitted:
    """Train to the end, starting from the directory's checkpoint if there is one. With `check`, keep the best tensors.

    `identity` says what is trained on what, and how. A checkpoint with another identity is rejected. Raises FitError.
    """
    tensors = list(policy.tensors.values())
    optimizer = torch.optim.AdamW(tensors, lr=settings.rate, weight_decay=0.0, betas=(0.9, 0.99))
    memory = loss_of if isinstance(loss_of, Remembers) else None
    run = _Run(policy=policy, optimizer=optimizer, memory=memory, path=directory / checkpoint.NAME, identity=identity)
    run.resume()
    saved, stopped = time.monotonic(), run.stopped or "steps"
    while run.step < settings.steps and not run.stopped:
        between = run.step % settings.whole == 0
        if between and asked_to_stop():
            stopped = "asked"
            break
        taken = loss_of(run.step)
        _descend(run, taken, settings)
        run.step += 1
        run.curve.take(run.step, taken.value)
        if said is not None:
            said(run.step, run.curve.smoothed or taken.value)
        if run.step % settings.whole:
            continue
        due = run.step % settings.check_every < settings.whole  # the first end of a group since a multiple of it
        if check is not None and due and run.checked(check(), settings.patience):
            stopped = run.stopped = "early"
        if time.monotonic() - saved > settings.save_every_s:
            run.save()
            saved = time.monotonic()
    run.save()
    if stopped != "asked":
        run.take_best()
    return Fitted(run.step, run.curve, stopped)


def _descend(run: _Run, taken: Taken, settings: Fit) -> None:
    """One step of the optimiser. Raises FitError, and changes no tensor, if a number is NaN or infinite."""
    found = float(taken.loss.detach())
    if not math.isfinite(found) or not math.isfinite(taken.value):
        raise FitError(f"the loss of step {run.step + 1} is {found}: try a smaller learning rate")
    run.optimizer.zero_grad()
    taken.loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(run.policy.tensors.values(), settings.clip, error_if_nonfinite=False)
    if not bool(norm.isfinite()):
        raise FitError(f"the gradient of step {run.step + 1} is NaN or infinite: try a smaller learning rate")
    for group in run.optimizer.param_groups:
        group["lr"] = settings.rate * settings.factor(run.step)
    run.optimizer.step()


@dataclass(slots=True, kw_only=True)
class _Run:
    policy: Policy
    optimizer: torch.optim.Optimizer
    memory: Remembers | None
    path: Path
    identity: str
    step: int = 0
    curve: Curve = field(default_factory=Curve)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    worse: int = 0
    stopped: str = ""

    def checked(self, loss: float, patience: int) -> bool:
        """Record a validation loss and return whether it is time to stop."""
        self.curve.validation.append((self.step, loss))
        if loss < self.best_loss:
            self.best_loss, self.worse = loss, 0
            self.best = {name: tensor.detach().clone() for name, tensor in self.policy.tensors.items()}
        else:
            self.worse += 1
        return bool(patience) and self.worse >= patience

    @torch.no_grad()
    def take_best(self) -> None:
        for name, tensor in self.best.items():
            self.policy.tensors[name].copy_(tensor)

    def save(self) -> None:
        """Write the checkpoint. Raises FitError if it cannot be written; the previous one stays intact."""
        more = {
            "stopped": self.stopped,
            "memory": {} if self.memory is None else self.memory.state(),
            "training": self.curve.training,
            "validation": self.curve.validation,
            "smoothed": self.curve.smoothed,
            "best": self.best,
            "best_loss": self.best_loss,
            "worse": self.worse,
        }
        try:
            checkpoint.write(
                self.path,
                of=self.identity,
                step=self.step,
                tensors=self.policy.tensors,
                optimizers=[self.optimizer],
                more=more,
            )
        except OSError as error:
            last = "the previous one is intact" if self.path.exists() else "there is no previous one"
            raise FitError(
                f"{self.path}: the checkpoint of step {self.step} cannot be written ({error.strerror}); {last}"
            ) from error

    def resume(self) -> None:
        if not self.path.exists():
            return
        try:
            content = checkpoint.read(self.path)
        except checkpoint.CheckpointError as error:
            raise FitError(f"{error}: remove it to start again") from None
        if content.get("of") != self.identity:
            raise OfAnotherRun(f"{self.path} belongs to another run: remove it, or choose another folder")
        try:
            self._load(content)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FitError(
                f"{self.path} does not fit this run ({type(error).__name__}): remove it to start again"
            ) from None

    def _load(self, content: dict[str, Any]) -> None:
        checkpoint.restore(content, self.policy.tensors, [self.optimizer])
        more = content["more"]
        self.step, self.stopped = content["step"], more["stopped"]
        if self.memory is not None:
            self.memory.restore(more["memory"])
        self.curve = Curve(list(more["training"]), list(more["validation"]), more["smoothed"])
        self.best, self.best_loss, self.worse = more["best"], more["best_loss"], more["worse"]
