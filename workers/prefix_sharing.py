"""Reads prompts with the same beginning once: one turn leads, the others wait and take its state where they part.

Turns share what they read if they start from the same checkpoint (or from nothing) and their next tokens are the same.
The state is copied into the slot of the other turn; from then on the two are independent. If the leader fails, is
cancelled or runs out of time, those that wait choose another one among themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ssmprov import ops
from workers.context import Snapshot
from workers.job import Job
from workers.runtimes.base import Runtime
from workers.state_cache import StateCache
from workers.turn import failing

log = logging.getLogger(__name__)

SHARED_TOKENS = 32
"""Shorter prefixes are read again: copying a state costs as much as reading a few tokens, and fills the cache."""


class PrefixSharing:
    """Used by the model thread alone."""

    def __init__(self, runtime: Runtime, cache: StateCache) -> None:
        self._runtime = runtime
        self._cache = cache

    def begin(self, job: Job, active: Sequence[Job]) -> None:
        """Load the start of a job into its slot, or a later state from the cache; or let it wait for another job."""
        start = _start(job)
        kept = self._cache.find(start.object, job.running.script.tobytes()) if _shares(job) else None
        if kept is None:
            self._runtime.load(job.slot, start.arrays)
        else:
            self._take(job, kept)
        self._follow(job, active)

    def marks(self, active: Sequence[Job]) -> dict[Job, int]:
        """Where each leader has to stop next so that others can take its state, counted from its start.

        A job whose leader is gone, or has passed their parting without leaving a state, follows another or reads alone.
        """
        for job in active:
            leader = job.leader
            if leader is not None and (leader.running.failed or leader.running.at >= job.parting):
                self._follow(job, active)
        found: dict[Job, int] = {}
        for job in active:
            if job.leader is not None and not job.running.failed:
                found[job.leader] = min(job.parting, found.get(job.leader, job.parting))
        return found

    def reached(self, job: Job, active: Sequence[Job]) -> None:
        """A job has read further: give its state to those that wait for it here, and keep it at the end of its prompt.

        If the state cannot be saved, it is not shared, and those that wait read for themselves.
        """
        turn = job.running
        followers = [other for other in active if other.leader is job and other.parting == turn.at]
        ended = turn.at == len(turn.script) and turn.at >= SHARED_TOKENS and not turn.stop and _shares(job)
        if turn.failed or not (followers or ended):
            return
        assert turn.logits is not None, "it has just read"
        try:
            arrays = self._runtime.save(job.slot)
        except Exception as error:
            log.warning("a state could not be shared: %s", error)
            return
        state = Snapshot(arrays=arrays, logits=turn.logits.copy(), window=np.zeros(0, np.int32), tokens=turn.at)
        self._cache.keep(_start(job).object, turn.script[: turn.at].tobytes(), state)
        for follower in followers:
            with failing(follower.running):
                self._take(follower, state)
        for follower in followers:
            self._follow(follower, active)

    def _take(self, job: Job, state: Snapshot) -> None:
        turn = job.running
        assert state.logits is not None, "a kept state has read something"
        self._runtime.load(job.slot, state.arrays)
        job.shared += state.tokens - turn.at
        turn.fed(state.tokens - turn.at, state.logits)
        if not turn.prefilling:
            job.prompt_at = time.monotonic()

    def _follow(self, job: Job, active: Sequence[Job]) -> None:
        """Wait for the earlier job that shares the longest prefix with this one, if it is long enough."""
        job.leader = None
        at = job.running.at
        most = at + SHARED_TOKENS - 1
        for other in active if _shares(job) else ():
            if other is job:
                break
            if other.leader is None and not other.running.failed and other.running.at >= at:
                together = _common(job, other)
                if together > max(most, other.running.at):
                    job.leader, job.parting, most = other, together, together


def _start(job: Job) -> Snapshot:
    assert job.start is not None, "the store thread found it before it submitted the job"
    return job.start


def _shares(job: Job) -> bool:
    """Whether others may share the start of a job. A replay exists to read everything itself."""
    start = _start(job)
    return isinstance(job.args, ops.Turn) and (bool(start.object) or not start.arrays)


def _common(job: Job, other: Job) -> int:
    """How many tokens two jobs have in common before they part."""
    if not _shares(other) or _start(job).object != _start(other).object:
        return 0
    one, two = job.running.script, other.running.script
    length = min(len(one), len(two))
    apart: NDArray[np.int64] = np.flatnonzero(one[:length] != two[:length])
    return int(apart[0]) if len(apart) else length
