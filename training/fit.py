"""Training on rows: steps of an objective over what a policy tunes, resumable at any checkpoint, with an early stop.

A checkpoint holds the tensors, the optimiser, the step and the curve: a run that was killed goes on from the last one
as if it had never stopped, since batches are drawn by step and seed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from training.policy import Policy

CHECKPOINT = "checkpoint.pth"
SMOOTH = 0.9


class FitError(ValueError):
    """A run that cannot go on: numbers that are none, a checkpoint of another run."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How long and how fast. `patience`: checks without a better validation loss after which it stops (0: never)."""

    steps: int
    rate: float
    warm_up: int = 10
    clip: float = 1.0
    check_every: int = 20
    patience: int = 0
    save_every_s: float = 30.0


@dataclass(slots=True)
class Curve:
    """What became of the loss: (step, loss) of training, smoothed, and of validation; both in nats or the
    objective's own unit."""

    training: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    smoothed: float | None = None

    def take(self, step: int, loss: float) -> None:
        self.smoothed = loss if self.smoothed is None else SMOOTH * self.smoothed + (1 - SMOOTH) * loss
        self.training.append((step, loss))

    @property
    def trend(self) -> float:
        """How much the loss fell, from the mean of its first tenth to that of its last: an improvement is positive."""
        tenth = max(1, len(self.training) // 10)
        losses = [loss for _, loss in self.training]
        if not losses:
            return 0.0
        return sum(losses[:tenth]) / tenth - sum(losses[-tenth:]) / tenth


@dataclass(slots=True)
class Fitted:
    """How a run ended: `stopped` is "steps", "early" or "asked"."""

    step: int
    curve: Curve
    stopped: str


Loss = Callable[[int], Tensor]
"""The loss of a step, differentiable in the policy's tensors; the same for the same step and tensors."""

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
    """Run to the end, or go on from the directory's checkpoint. With `check` the best tensors are kept, else the last.

    `identity` names what is being trained on what: a checkpoint of something else is refused. Raises FitError.
    """
    tensors = list(policy.tensors.values())
    optimizer = torch.optim.AdamW(tensors, lr=settings.rate, weight_decay=0.0, betas=(0.9, 0.99))
    run = _Run(policy, optimizer, directory / CHECKPOINT, identity)
    run.resume()
    saved = time.monotonic()
    stopped = "steps"
    while run.step < settings.steps:
        if asked_to_stop():
            stopped = "asked"
            break
        loss = loss_of(run.step)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FitError(f"the loss of step {run.step + 1} is {value}: try a smaller learning rate")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(tensors, settings.clip, error_if_nonfinite=False)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate * schedule(run.step, settings)
        optimizer.step()
        run.step += 1
        run.curve.take(run.step, value)
        if said is not None:
            said(run.step, run.curve.smoothed or value)
        if check is not None and run.step % settings.check_every == 0 and run.checked(check(), settings.patience):
            stopped = "early"
            break
        if time.monotonic() - saved > settings.save_every_s:
            run.save()
            saved = time.monotonic()
    run.save()
    if stopped != "asked":
        run.take_best()
    return Fitted(run.step, run.curve, stopped)


def schedule(step: int, settings: Fit) -> float:
    """The factor on the rate: up in a line, then down along a cosine to a tenth."""
    if step < settings.warm_up:
        return (step + 1) / settings.warm_up
    share = (step - settings.warm_up) / max(1, settings.steps - settings.warm_up)
    return 0.55 + 0.45 * math.cos(math.pi * min(1.0, share))


@dataclass(slots=True)
class _Run:
    policy: Policy
    optimizer: torch.optim.Optimizer
    path: Path
    identity: str
    step: int = 0
    curve: Curve = field(default_factory=Curve)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_loss: float = math.inf
    worse: int = 0

    def checked(self, loss: float, patience: int) -> bool:
        """Note a validation loss; whether it is time to stop."""
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
        """Whole or not at all."""
        content = {
            "identity": self.identity,
            "step": self.step,
            "tensors": {name: tensor.detach() for name, tensor in self.policy.tensors.items()},
            "optimizer": self.optimizer.state_dict(),
            "training": self.curve.training,
            "validation": self.curve.validation,
            "smoothed": self.curve.smoothed,
            "best": self.best,
            "best_loss": self.best_loss,
            "worse": self.worse,
        }
        part = self.path.with_suffix(".part")
        torch.save(content, part)
        part.replace(self.path)

    def resume(self) -> None:
        if not self.path.exists():
            return
        try:
            content = torch.load(self.path, weights_only=True)
        except Exception as error:
            raise FitError(f"{self.path} cannot be read ({type(error).__name__}): remove it to begin anew") from None
        if content["identity"] != self.identity:
            raise FitError(f"{self.path} is of another run: remove it, or choose another folder")
        with torch.no_grad():
            for name, tensor in self.policy.tensors.items():
                tensor.copy_(content["tensors"][name])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]
        self.curve = Curve(list(content["training"]), list(content["validation"]), content["smoothed"])
        self.best, self.best_loss, self.worse = content["best"], content["best_loss"], content["worse"]
