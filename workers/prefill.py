"""Decides how much of the waiting prompts a step reads: too little to stall a stream, and fair between clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from workers.job import Job

FEWEST = 16
"""The fewest tokens that a step, and a job in it, reads: with fewer, most of its time is spent on reading weights."""

AIM = 0.9
"""The share of `gap_s` to aim for: steps vary in time, and the longest should stay below it, too."""


RELIEF = 4
"""A prompt goes first once it has waited this many steps per job of its client: so long prompts move on, too."""


class Pace:
    """How many prompt tokens a step may read: `most` while no context decodes, else few enough to take under `gap_s`.

    The time of a step has a fixed part (the decoding tokens, one pass over the weights) and a part for each token.
    Scaling the tokens of the last step by the ratio of the aim to its time converges on the right number.
    """

    def __init__(self, most: int, gap_s: float) -> None:
        self._most = most
        self._aim_s = AIM * gap_s
        self._beside = min(FEWEST, most)

    def tokens(self, *, writing: bool) -> int:
        return self._beside if writing else self._most

    def took(self, tokens: int, seconds: float) -> None:
        """A step that read this many prompt tokens beside decoding contexts took this long."""
        if tokens < self._beside and seconds <= self._aim_s:
            return  # the short rest of a prompt says nothing about longer slices
        fitting = int(tokens * min(2.0, max(0.5, self._aim_s / seconds)))
        self._beside = min(self._most, max(FEWEST, fitting))


def portions(jobs: Sequence[Job], tokens: int, left: Callable[[Job], int], step: int) -> list[tuple[Job, int]]:
    """Which jobs read how many of a step's tokens; the clients that have waited longest come first.

    Clients get equal shares, however many jobs they have; what one cannot use goes to the next job. Among the jobs of
    one client the shortest comes first, so that one of several prompts is answered soon; side by side, all of them
    would be late. Only a job that has waited too long goes before it.
    """
    of_client: dict[bytes, list[Job]] = {}
    for job in jobs:
        of_client.setdefault(job.request.client, []).append(job)
    queues = sorted(of_client.values(), key=lambda queue: max(job.read_at for job in queue))
    for queue in queues:
        late = step - RELIEF * len(queue)
        queue.sort(key=lambda job: (0, job.read_at) if job.read_at < late else (1, left(job)))
    share = max(FEWEST, tokens // max(1, len(queues)))
    found = []
    for job in filter(None, chain.from_iterable(zip_longest(*queues))):
        if tokens <= 0:
            break
        count = min(share, tokens, left(job))
        tokens -= count
        found.append((job, count))
    return found
