"""A scheduler that a test can step, and look into."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from turn_toys import GREEDY, ToyRuntime, follow

from ssmprov import ops, wire
from ssmprov.settings import Settings
from workers.batch import Batch, News
from workers.context import Arrays, Snapshot, empty
from workers.job import Job
from workers.prefill import Pace
from workers.prompt import Prompt, Vocabulary
from workers.runtimes.base import Feed, Logits, Runtime
from workers.state_cache import StateCache
from workers.turn import Limits, Turn
from workers.turns import vocabulary_of

PATIENCE_S = 60.0


def nothing(_: object) -> None:
    pass


RULES = {b"go": [b"tick"], b"tick": [b"tock"], b"tock": [b"tick"], b"bye": [b""], b"fin?": [b"fin"], b"fin": [b""]}


class Gated(ToyRuntime):
    """A toy that steps only when the test lets it, and tells what each step is about to read.

    `act` is called in the step, and may raise.
    """

    def __init__(self, slots: int = 4) -> None:
        super().__init__([b"tick", b"tock", b"fin"], follow(RULES), slots)
        self.entered: queue.SimpleQueue[list[Feed]] = queue.SimpleQueue()
        self.gate = threading.Semaphore(0)
        self.open = False
        self.act: Callable[[Sequence[Feed]], None] = nothing
        self.on_load: Callable[[int], None] = nothing
        self.on_save: Callable[[int], None] = nothing

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        self.entered.put([Feed(feed.slot, list(feed.tokens)) for feed in feeds])
        if not self.open:
            assert self.gate.acquire(timeout=PATIENCE_S)
        self.act(feeds)
        return super().forward(feeds)

    def load(self, slot: int, arrays: Arrays) -> None:
        self.on_load(slot)
        super().load(slot, arrays)

    def save(self, slot: int) -> Arrays:
        self.on_save(slot)
        return super().save(slot)

    def step(self) -> list[Feed]:
        """Let one step go, and see what it read."""
        feeds = self.entered.get(timeout=PATIENCE_S)
        self.gate.release()
        return feeds

    def run_on(self) -> None:
        self.open = True
        self.gate.release(1000)


@dataclass
class Bench:
    """A running batch, and what it reports."""

    runtime: Runtime
    slice_tokens: int = 16
    gap_s: float = 60.0
    cache: StateCache = field(default_factory=lambda: StateCache(0))
    news: list[News] = field(default_factory=list)
    done: queue.SimpleQueue[Job] = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        self.vocabulary: Vocabulary = vocabulary_of(self.runtime)
        pace = Pace(self.slice_tokens, self.gap_s)
        self.batch = Batch(self.runtime, pace, self.cache, self.news.extend, self.done.put)
        self.batch.start()

    def job(
        self,
        prompt: str,
        *,
        start: Snapshot | None = None,
        tokens: int | None = 10,
        settings: Settings = GREEDY,
        seed: int = 0,
        deadline: float = float("inf"),
        save: str = "kept",
        client: bytes = b"client",
        args: ops.Turn | ops.Replay | None = None,
    ) -> Job:
        args = args or ops.Turn(save=save, max_tokens=tokens)
        job = Job(
            request=wire.Request(wire.new_id(), "turn", client=client),
            args=args,
            deadline=deadline,
            arrived=time.monotonic(),
        )
        job.start = start or empty()
        read = Prompt(prompt.encode(), self.vocabulary, heal=True)
        job.turn = Turn(self.vocabulary, job.start, read, settings, Limits(tokens, 10_000), seed)
        return job

    def submit(self, prompt: str, **options: Any) -> Job:
        job = self.job(prompt, **options)
        self.batch.submit(job)
        return job

    def finished(self, count: int) -> list[Job]:
        return [self.done.get(timeout=PATIENCE_S) for _ in range(count)]

    def streamed(self, job: Job) -> bytes:
        return b"".join(item.text for item in self.news if item.job is job)


OpenBench = Callable[..., Bench]


@contextmanager
def benches() -> Iterator[OpenBench]:
    """Opens benches with a runtime and options of `Bench`, and ends their threads."""
    made: list[Bench] = []

    def make(runtime: Runtime, slice_tokens: int = 16, **options: Any) -> Bench:
        made.append(Bench(runtime, slice_tokens, **options))
        return made[-1]

    yield make
    for bench in made:
        if isinstance(bench.runtime, Gated):
            bench.runtime.run_on()
        bench.batch.stop()


def turn(job: Job) -> Turn:
    assert job.turn is not None
    return job.turn


def text(job: Job) -> str:
    """The reply of a job that ended well, held against the state that was saved."""
    assert turn(job).failed is None, turn(job).failed
    return turn(job).reply.decode()
