"""Checks of a policy before a long run. They need only the policy, and leave it unchanged.

P1   compares the scan, which training uses, with single steps, which sampling and serving use
P6   compares the gradient with central finite differences
P7   overfits a few short rows, which shows whether the tuned tensors can change the model's output at all
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from training.objectives import cross_entropy, token_logps
from training.packing import Sample, tensors
from training.policy import Architecture, Kind, Policy

SCAN_TOLERANCE = 2e-3
"""The tolerance for logits, relative to their spread: both paths use fp32, but add in different orders."""
GRADIENT_TOLERANCE = 0.05
"""The relative tolerance for a derivative: a difference of two fp32 losses has about three correct digits."""
SHRINKS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Step sizes to try one after another, as shares of the first. In a well trained model, the loss can curve within a
short distance where it is steepest. A wrong derivative agrees with the difference at none of them."""
REACHED = 0.3
"""The overfit must reduce the loss to this share of its first value. The shipped models reach a tenth of this share."""
OVERFIT_STEPS = 40
RATES: dict[tuple[Architecture, Kind], float] = {
    ("rwkv7", "tune"): 0.1,
    ("asm", "tune"): 0.3,
    ("rwkv7", "train"): 3e-3,
    ("asm", "train"): 3e-3,
}
"""Learning rates of AdamW with which the shipped models reach a twentieth of their loss in 30 steps. An initial state
needs larger rates than weights, because its numbers are as large as activations."""
WIDTH = 40
ROWS = (("a: ", "red"), ("b: ", "blue"), ("c: ", "green"), ("d: ", "gold"))


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check. `metrics` holds what it measured, and the limits."""

    passed: bool
    seconds: float
    metrics: dict[str, float]


@torch.no_grad()
def scan_and_steps(policy: Policy, seed: int = 0) -> Check:
    """P1: compares the logits of two rows, read at once and token by token."""
    begun = time.monotonic()
    rows = _rows(policy, 2, seed)
    at_once = policy.logits(rows)
    state, found = policy.begin(2), []
    for column in rows.unbind(1):
        logits, state = policy.read(column.unsqueeze(1), None, state)
        found.append(logits.clone())
    difference = float((torch.stack(found, dim=1) - at_once).abs().max())
    spread = float(at_once.std())
    return _check(begun, difference <= SCAN_TOLERANCE * spread, difference=difference, spread=spread)


def gradient(policy: Policy, seed: int = 0, entries: int = 6) -> Check:
    """P6: checks derivatives with respect to some entries: the steepest entry of each of several random tensors."""
    begun = time.monotonic()
    rows = _rows(policy, 2, seed)

    def loss() -> Tensor:
        return -token_logps(policy.logits(rows[:, :-1]), rows[:, 1:]).double().mean()

    grads = torch.autograd.grad(loss(), list(policy.tensors.values()), allow_unused=True)
    steep = [(tensor, grad) for tensor, grad in zip(policy.tensors.values(), grads, strict=True)
             if grad is not None and bool(grad.any())]  # fmt: skip
    worst = 0.0
    chosen = Random(seed).sample(steep, min(entries, len(steep)))
    with kept(policy), torch.no_grad():
        for tensor, grad in chosen:
            at = torch.unravel_index(grad.abs().argmax(), grad.shape)
            wanted, before = float(grad[at]), tensor[at].clone()
            first = min(max(1e-2 * float(tensor.abs().max()), 1e-3), 1e-2 / abs(wanted))
            errors = list[float]()
            for shrink in SHRINKS:
                step = first * shrink
                values = []
                for sign in (1, -1):
                    tensor[at] = before + sign * step
                    values.append(float(loss()))
                errors.append(abs((values[0] - values[1]) / (2 * step) / wanted - 1))
                if errors[-1] <= GRADIENT_TOLERANCE:
                    break
            tensor[at] = before
            worst = max(worst, min(errors))
    passed = bool(chosen) and worst <= GRADIENT_TOLERANCE
    return _check(begun, passed, error=worst, tolerance=GRADIENT_TOLERANCE, entries=len(chosen))


def overfit(policy: Policy, samples: Sequence[Sample] = (), steps: int = OVERFIT_STEPS) -> Check:
    """P7: overfits a few short rows: the given ones, or random text."""
    begun = time.monotonic()
    encode, end = policy.base.tokenizer.encode, policy.base.tokenizer.end
    own = [Sample([*encode(prompt), *encode(answer), end], len(encode(prompt))) for prompt, answer in ROWS]
    batch = tensors(samples or own)
    losses: list[float] = []
    with kept(policy):
        rate = RATES[policy.base.architecture, policy.kind]
        optimizer = torch.optim.AdamW(policy.tensors.values(), lr=rate, weight_decay=0.0, betas=(0.9, 0.99))
        for step in range(steps + 1):
            loss = cross_entropy(policy.logits(batch.tokens), batch)
            losses.append(float(loss.detach()))
            if step == steps or losses[-1] < REACHED * losses[0]:
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(policy.tensors.values(), 1.0)
            optimizer.step()
        optimizer.zero_grad()
    reached = REACHED * losses[0]
    return _check(begun, losses[-1] < reached, first=losses[0], last=losses[-1], below=reached, steps=len(losses) - 1)


@contextmanager
def kept(policy: Policy) -> Iterator[None]:
    """Restores the trained tensors at the end."""
    before = {name: tensor.detach().clone() for name, tensor in policy.tensors.items()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in policy.tensors.items():
                tensor.copy_(before[name])


def _rows(policy: Policy, count: int, seed: int) -> Tensor:
    """Random text [count, WIDTH], made of ids that spell something."""
    width = WIDTH if policy.room is None else min(WIDTH, policy.room)
    generator = torch.Generator().manual_seed(seed)
    letters = policy.base.tokenizer.encode("the quick brown fox, 0123456789 (jumps)\n")
    return torch.tensor(letters)[torch.randint(len(letters), (count, width), generator=generator)]


def _check(begun: float, passed: bool, **metrics: float) -> Check:
    return Check(passed, time.monotonic() - begun, metrics)
