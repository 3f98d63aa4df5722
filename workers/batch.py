"""The scheduler: one thread that owns the runtime and steps all running turns together.

Contexts join and leave at any step. Each step lets every decoding context read its one token, and long prompts a
bounded slice together, so that no stream stalls while another reads.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ssmprov import ops
from ssmprov.errors import Corrupt, SsmprovError, TimedOut
from workers.context import Snapshot
from workers.job import Job
from workers.runtimes.base import Feed, Runtime
from workers.sampler import sample
from workers.turn import Turn

PROGRESS_TOKENS = 256
"""A reader is told of a prompt's progress each so many tokens."""


@dataclass(frozen=True, slots=True)
class News:
    """What a step brought for one job's reader: text, sampled tokens so far, progress of the prompt."""

    job: Job
    text: bytes
    tokens: int
    progress: tuple[int, int]


@dataclass(slots=True)
class Gauges:
    """Counters that other threads read: steps taken, tokens sampled, prompt tokens read."""

    steps: int = 0
    tokens: int = 0
    prefill_tokens: int = 0


class Batch:
    """Runs turns on a runtime. `submit` and `cancel` may be called from any thread."""

    def __init__(
        self,
        runtime: Runtime,
        slice_tokens: int,
        on_news: Callable[[list[News]], None],
        on_done: Callable[[Job], None],
    ) -> None:
        self._runtime = runtime
        self._slice = slice_tokens
        self._on_news = on_news
        self._on_done = on_done
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = list(range(runtime.slots - 1, -1, -1))
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._turn_of = 0
        self.gauges = Gauges()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._inbox.put(lambda: self._waiting.append(job))

    def cancel(self, job: Job, mode: str) -> None:
        self._inbox.put(lambda: _turn(job).cancel(mode))

    def stop(self) -> None:
        """End the thread after the step that runs."""
        self._inbox.put(None)
        self._thread.join()

    # -- the model thread

    def _run(self) -> None:
        while self._take():
            self._admit()
            self._judge_time()
            self._step()
            self._finish()

    def _take(self) -> bool:
        """Do what other threads have asked for; wait for it when there is nothing to step."""
        while True:
            idle = not self._active and not self._waiting
            try:
                task = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            if task is None:
                return False
            task()

    def _admit(self) -> None:
        while self._waiting and self._free:
            job = self._waiting.popleft()
            job.slot = self._free.pop()
            job.admitted_at = time.monotonic()
            self._active.append(job)
            assert job.start is not None
            with _failing(_turn(job)):
                self._check(job.start)
                self._runtime.load(job.slot, job.start.arrays)

    def _check(self, start: Snapshot) -> None:
        """Raises Corrupt for what would fail whoever is sampled together with it: a file can be forged."""
        size = self._runtime.vocabulary
        if start.logits is not None and start.logits.shape != (size,):
            raise Corrupt(f"this checkpoint holds {start.logits.shape[0]} logits, and this model has {size} tokens")
        if len(start.window) and not (start.window.min() >= 0 and start.window.max() < size):
            raise Corrupt("this checkpoint's penalty window holds tokens that this model does not have")

    def _judge_time(self) -> None:
        now = time.monotonic()
        for job in (*self._active, *self._waiting):
            if now >= job.deadline:
                _turn(job).fail(TimedOut("the turn's time ran out: the context is what it was before"))
        for job in [job for job in self._waiting if _turn(job).failed]:
            self._waiting.remove(job)
            self._on_done(job)

    def _step(self) -> None:
        feeds: list[tuple[Job, Feed]] = []
        long: list[Job] = []
        for job in self._active:
            turn = _turn(job)
            if turn.failed:
                continue
            if turn.waiting == 1:
                feeds.append((job, Feed(job.slot, turn.upcoming(1))))
            elif turn.waiting:
                long.append(job)
        feeds += self._slices(long)
        if feeds:
            self._forward(feeds)
        self._decide()
        self.gauges.steps += 1
        self._tell()

    def _slices(self, long: list[Job]) -> list[tuple[Job, Feed]]:
        """A bounded number of prompt tokens, taken from the long queues in turn."""
        budget = self._slice
        feeds = []
        first = self._turn_of % len(long) if long else 0
        for job in (*long[first:], *long[:first]):
            if budget <= 0:
                break
            share = max(1, min(budget, self._slice // max(1, min(len(long), 4))))
            tokens = _turn(job).upcoming(share)
            budget -= len(tokens)
            feeds.append((job, Feed(job.slot, tokens)))
        self._turn_of += 1
        return feeds

    def _forward(self, feeds: list[tuple[Job, Feed]]) -> None:
        with _failing(*(_turn(job) for job, _ in feeds)):
            logits = self._runtime.forward([feed for _, feed in feeds])
            now = time.monotonic()
            for row, (job, feed) in enumerate(feeds):
                turn = _turn(job)
                reading = turn.prefilling
                turn.fed(len(feed.tokens), logits[row])
                if not (logits[row] < np.inf).all():  # nor NaN: such a state is not to be committed
                    turn.fail(SsmprovError("the model's numbers overflowed: the context is what it was before"))
                if reading:
                    self.gauges.prefill_tokens += len(feed.tokens)
                    if not turn.prefilling:
                        job.prompt_at = now

    def _decide(self) -> None:
        """Sample and judge until every turn has something to read or is done; refused tokens are drawn again."""
        turns = [_turn(job) for job in self._active]
        for turn in turns:
            with _failing(turn):
                turn.settle()
        while undecided := [turn for turn in turns if _undecided(turn)]:
            with _failing(*undecided):
                rows = [turn.draw() for turn in undecided]
                tokens = sample([logits for logits, _ in rows], [draw for _, draw in rows])
                for turn, token in zip(undecided, tokens, strict=True):
                    self._judge(turn, token)

    def _judge(self, turn: Turn, token: int) -> None:
        before = turn.sampled
        with _failing(turn):
            turn.judge(token)
        self.gauges.tokens += turn.sampled - before

    def _tell(self) -> None:
        news = []
        for job in self._active:
            turn = _turn(job)
            done, total = turn.progress
            fresh = turn.showable > job.shown
            if fresh or (turn.prefilling and done - job.told >= PROGRESS_TOKENS):
                text = bytes(turn.reply[job.shown : turn.showable])
                job.shown += len(text)
                job.told = done
                news.append(News(job, text, turn.sampled, (done, total)))
        if news:
            self._on_news(news)

    def _finish(self) -> None:
        done = [job for job in self._active if _turn(job).done]
        if not done:
            return
        self._active = [job for job in self._active if not _turn(job).done]
        for job in done:
            job.done_at = time.monotonic()
            if not _turn(job).failed and (job.args.save or isinstance(job.args, ops.Replay)):
                with _failing(_turn(job)):
                    job.arrays = self._runtime.save(job.slot)
            self._free.append(job.slot)
            self._free.sort(reverse=True)
            self._on_done(job)


def _turn(job: Job) -> Turn:
    assert job.turn is not None, "the store thread made the turn before it submitted the job"
    return job.turn


@contextmanager
def _failing(*turns: Turn) -> Iterator[None]:
    """Whatever is raised ends these turns, not the worker."""
    try:
        yield
    except SsmprovError as error:
        failure = error
    except Exception as error:
        failure = SsmprovError(f"the model failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
    else:
        return
    for turn in turns:
        turn.fail(failure)


def _undecided(turn: Turn) -> bool:
    return not turn.done and turn.waiting == 0 and not turn.stop
