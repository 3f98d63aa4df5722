"""The scheduler with a real runtime, in a separate process: `python -P -m benchmarks.scheduler WEIGHTS THREADS`.

A clock wraps the runtime. The time of a step outside of the model's forward is the scheduler's overhead.
"""

from __future__ import annotations

import queue
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from benchmarks.serving import obey
from ssmprov import ops, wire
from ssmprov.process import die_with_parent
from ssmprov.settings import Settings
from workers.batch import Batch
from workers.context import empty
from workers.job import Job
from workers.prefill import Pace
from workers.prompt import Prompt
from workers.runtimes import base
from workers.runtimes.base import Feed, Logits, Runtime
from workers.state_cache import StateCache
from workers.turn import Limits, Turn
from workers.turns import vocabulary_of

CHARACTERS = 1 << 20
"""The limit of a reply, which no turn here reaches."""


class Clocked:
    """A runtime that records when each forward of all slots began and ended."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.steps: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        began = perf_counter()
        logits = self._runtime.forward(feeds)
        if len(feeds) == self._runtime.slots:
            self.steps.append((began, perf_counter()))
        return logits


class Scheduler:
    """Runs one turn in each slot at the same time, without worker and broker."""

    def __init__(self, path: Path, threads: int, slots: int) -> None:
        self._runtime = base.load("rwkv", base.Plan(path=path, slots=slots, options={"threads": threads}))
        self._vocabulary = vocabulary_of(self._runtime)

    def run(self, prompts: list[str], tokens: int, settings: dict[str, float]) -> dict[str, float]:
        """The median seconds of a step, and of its part outside of the forward."""
        clocked: Any = Clocked(self._runtime)
        done: queue.SimpleQueue[Job] = queue.SimpleQueue()
        batch = Batch(clocked, Pace(128, 1.0), StateCache(0), lambda _: None, done.put)
        jobs = [
            self._job(prompt, tokens, msgspec.convert(settings, Settings), seed) for seed, prompt in enumerate(prompts)
        ]
        for job in jobs:
            batch.submit(job)
        batch.start()
        for _ in jobs:
            failed = done.get().running.failed
            if failed is not None:
                raise failed
        batch.stop()
        pairs = list(zip(clocked.steps, clocked.steps[1:], strict=False))
        return {
            "step": statistics.median(later[1] - earlier[1] for earlier, later in pairs),
            "outside": statistics.median(later[0] - earlier[1] for earlier, later in pairs),
        }

    def _job(self, prompt: str, tokens: int, settings: Settings, seed: int) -> Job:
        job = Job(
            request=wire.Request(wire.new_id(), "turn"),
            args=ops.Turn(),
            deadline=float("inf"),
            arrived=time.monotonic(),
            start=empty(),
        )
        read = Prompt(prompt.encode(), self._vocabulary, heal=True)
        job.turn = Turn(self._vocabulary, empty(), read, settings, Limits(tokens, CHARACTERS), seed)
        return job


def main(path: str, threads: str, slots: str) -> None:
    die_with_parent()
    obey({"run": Scheduler(Path(path), int(threads), int(slots)).run})


if __name__ == "__main__":
    main(*sys.argv[1:])
