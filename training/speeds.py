"""Measures tokens per second of reading, decoding and training. It alternates between several models."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from training.data import Batch, batches
from training.readers import Reader
from training.trainee import Trainee

SLICE, READ, DECODED, LANES, WINDOW = 512, 4096, 64, 8, 512
TASKS = ("reading, slices of 512", "decoding, batch 1", "decoding, batch 8", "training, 8 lanes of 512")

Task = Callable[[], int]
"""Does its work once, and returns the number of tokens."""


@dataclass(frozen=True, slots=True)
class Figure:
    """Tokens per second over the rounds."""

    median: float
    least: float
    most: float


def tasks(reader: Reader, trainee: Trainee[Any]) -> dict[str, Task]:
    """The TASKS for one model. A training step computes the loss and its gradients, without the optimiser."""
    batch = next(batches(1, "held_out", LANES, WINDOW))
    work = (
        lambda: _read(reader, batch),
        lambda: _decode(reader, batch, 1),
        lambda: _decode(reader, batch, 8),
        lambda: _train(trainee, batch),
    )
    return dict(zip(TASKS, work, strict=True))


def in_turns(models: dict[str, dict[str, Task]], rounds: int) -> dict[str, dict[str, Figure]]:
    """Times each task of all models, one model after the other: one round to warm up, then `rounds` rounds."""
    found: dict[str, dict[str, Figure]] = {name: {} for name in models}
    for task in TASKS:
        rates: dict[str, list[float]] = {name: [] for name in models}
        for number in range(rounds + 1):
            for name, work in models.items():
                begun = time.perf_counter()
                tokens = work[task]()
                if number:
                    rates[name].append(tokens / (time.perf_counter() - begun))
        for name, values in rates.items():
            found[name][task] = Figure(*(round(f(values), 1) for f in (statistics.median, min, max)))
    return found


def _read(reader: Reader, batch: Batch) -> int:
    state = reader.start(1)
    tokens = batch.tokens[:1, :SLICE]
    for _ in range(READ // SLICE):
        _, state = reader.read(tokens, state)
    return READ


def _decode(reader: Reader, batch: Batch, contexts: int) -> int:
    logits, state = reader.read(batch.tokens[:contexts, :64], reader.start(contexts))
    for _ in range(DECODED):
        logits, state = reader.read(logits.argmax(dim=-1, keepdim=True), state)
    return contexts * DECODED


def _train(trainee: Trainee[Any], batch: Batch) -> int:
    loss, _ = trainee.loss(batch.tokens, batch.targets, batch.weights, trainee.new_state(LANES))
    torch.autograd.grad(loss, list(trainee.tensors.values()), allow_unused=True)
    return LANES * WINDOW
