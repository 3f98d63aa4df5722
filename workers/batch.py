"""The scheduler: one thread owns the runtime and steps all running turns together.

Contexts join and leave at any step. In each step, every decoding context reads one token, and long prompts read a slice
that is small enough not to stall the streams.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from ssmprov import ops
from ssmprov.errors import Corrupt, SsmprovError, TimedOut
from workers.context import Snapshot
from workers.job import Job
from workers.prefill import Pace, portions
from workers.prefix_sharing import PrefixSharing
from workers.runtimes.base import Feed, Runtime
from workers.sampler import sample
from workers.state_cache import StateCache
from workers.turn import Turn, failing

PROGRESS_TOKENS = 256
"""A reader learns of a prompt's progress each time this many tokens have been read."""

NEWS_S = 0.02
"""How often readers learn of new tokens. A small model makes several steps in this time, and messages cost time."""


@dataclass(frozen=True, slots=True)
class News:
    """What a step has for the reader of one job: text, the number of tokens sampled so far, progress of the prompt."""

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
    """Runs turns on a runtime. Any thread may call `submit` and `cancel`."""

    def __init__(
        self,
        runtime: Runtime,
        pace: Pace,
        cache: StateCache,
        on_news: Callable[[list[News]], None],
        on_done: Callable[[Job], None],
    ) -> None:
        self._runtime = runtime
        self._pace = pace
        self._sharing = PrefixSharing(runtime, cache)
        self._on_news = on_news
        self._on_done = on_done
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._free = list(range(runtime.slots - 1, -1, -1))
        self._waiting: deque[Job] = deque()
        self._active: list[Job] = []
        self._told_at = 0.0
        self.gauges = Gauges()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Job) -> None:
        self._inbox.put(lambda: self._waiting.append(job))

    def cancel(self, job: Job, mode: str) -> None:
        self._inbox.put(lambda: job.running.cancel(mode))

    def stop(self) -> None:
        """End the thread after the current step."""
        self._inbox.put(None)
        self._thread.join()

    # -- the model thread

    def _run(self) -> None:
        while self._take():
            began = time.monotonic()
            self._admit()
            self._judge_time()
            read = self._step()
            self._finish()
            if read:
                self._pace.took(read, time.monotonic() - began)

    def _take(self) -> bool:
        """Do what other threads asked for; wait for them if there is nothing to step."""
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
            job.read_at = self.gauges.steps  # it waits from this step on: newer jobs do not overtake older ones
            self._active.append(job)
            assert job.start is not None
            with failing(job.running):
                self._check(job.start)
                self._sharing.begin(job, self._active)

    def _check(self, start: Snapshot) -> None:
        """Raise Corrupt for a checkpoint (it may be forged) that would make the sampling of the whole batch fail."""
        size = self._runtime.vocabulary
        if start.logits is not None and start.logits.shape != (size,):
            raise Corrupt(f"this checkpoint holds {start.logits.shape[0]} logits, but this model has {size} tokens")
        if len(start.window) and not (start.window.min() >= 0 and start.window.max() < size):
            raise Corrupt("this checkpoint's penalty window holds tokens that this model does not have")

    def _judge_time(self) -> None:
        now = time.monotonic()
        for job in (*self._active, *self._waiting):
            if now >= job.deadline:
                job.running.fail(TimedOut("the turn ran out of time: the context is unchanged"))
        for job in [job for job in self._waiting if job.running.failed]:
            self._waiting.remove(job)
            self._on_done(job)

    def _step(self) -> int:
        """Read, decide and send news. Returns how many prompt tokens were read while others decoded."""
        marks = self._sharing.marks(self._active)
        feeds: list[tuple[Job, Feed]] = []
        long: list[Job] = []
        writing = False
        for job in self._active:
            turn = job.running
            if turn.failed or job.leader is not None:
                continue
            writing |= not turn.prefilling
            if turn.waiting == 1:
                feeds.append((job, Feed(job.slot, turn.upcoming(1))))
            elif turn.waiting:
                long.append(job)
        slices = self._slices(long, marks, self._pace.tokens(writing=writing))
        feeds += slices
        if feeds:
            self._forward(feeds)
        self._decide()
        self.gauges.steps += 1
        self._tell()
        return sum(len(feed.tokens) for _, feed in slices) if writing else 0

    def _slices(self, long: list[Job], marks: dict[Job, int], tokens: int) -> list[tuple[Job, Feed]]:
        """Which prompts read how many tokens; a leader stops where a follower takes its state."""

        def left(job: Job) -> int:
            turn = job.running
            return marks[job] - turn.at if job in marks else turn.waiting

        feeds = []
        step = self.gauges.steps + 1
        for job, count in portions(long, tokens, left, step):
            job.read_at = step
            feeds.append((job, Feed(job.slot, job.running.upcoming(count))))
        return feeds

    def _forward(self, feeds: list[tuple[Job, Feed]]) -> None:
        with failing(*(job.running for job, _ in feeds)):
            logits = self._runtime.forward([feed for _, feed in feeds])
            now = time.monotonic()
            for row, (job, feed) in enumerate(feeds):
                turn = job.running
                reading = turn.prefilling
                turn.fed(len(feed.tokens), logits[row])
                if not (logits[row] < np.inf).all():  # also catches NaN; such a state must not be committed
                    turn.fail(SsmprovError("the model's numbers overflowed: the context is unchanged"))
                if reading:
                    self.gauges.prefill_tokens += len(feed.tokens)
                    if not turn.prefilling:
                        job.prompt_at = now
                    self._sharing.reached(job, self._active)

    def _decide(self) -> None:
        """Sample and judge until every turn has tokens to read or is done; a rejected token is drawn again."""
        turns = [job.running for job in self._active]
        for turn in turns:
            with failing(turn):
                turn.settle()
        while undecided := [turn for turn in turns if _undecided(turn)]:
            with failing(*undecided):
                rows = [turn.draw() for turn in undecided]
                tokens = sample([logits for logits, _ in rows], [draw for _, draw in rows])
                for turn, token in zip(undecided, tokens, strict=True):
                    self._judge(turn, token)
        for job in self._active:
            if job.running.moves and not job.running.failed:
                with failing(job.running):
                    job.running.move(partial(self._runtime.save, job.slot), partial(self._runtime.load, job.slot))

    def _judge(self, turn: Turn, token: int) -> None:
        before = turn.sampled
        with failing(turn):
            turn.judge(token)
        self.gauges.tokens += max(0, turn.sampled - before)

    def _tell(self) -> None:
        """Send readers what is new, but not too often. The first and the last text are sent at once."""
        now = time.monotonic()
        fresh = [job for job in self._active if job.running.showable > job.shown]
        due = now - self._told_at >= NEWS_S or any(not job.shown or job.running.done for job in fresh)
        news = []
        for job in self._active:
            turn = job.running
            done, total = turn.progress
            if (due and turn.showable > job.shown) or (turn.prefilling and done - job.told >= PROGRESS_TOKENS):
                text = bytes(turn.reply[job.shown : turn.showable])
                job.shown += len(text)
                job.told = done
                news.append(News(job, text, turn.sampled, (done, total)))
        if news:
            self._told_at = now
            self._on_news(news)

    def _finish(self) -> None:
        done = [job for job in self._active if job.running.done]
        if not done:
            return
        self._active = [job for job in self._active if not job.running.done]
        for job in done:
            job.done_at = time.monotonic()
            if not job.running.failed and (job.args.save or isinstance(job.args, ops.Replay)):
                with failing(job.running):
                    job.arrays = self._runtime.save(job.slot)
            self._free.append(job.slot)
            self._free.sort(reverse=True)
            self._on_done(job)


def _undecided(turn: Turn) -> bool:
    return not turn.done and turn.waiting == 0 and not turn.stop
