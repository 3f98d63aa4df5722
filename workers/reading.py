"""How much of the waiting prompts a step reads: little enough that no stream stalls, and fairly between clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from workers.job import Job

FEWEST = 4
"""Tokens of a prompt that a step reads at least, whatever it takes: whoever reads gets on, too."""

SHARE = 16
"""A part of a step's tokens is not made smaller than this for the sake of one client more: it is their turn later."""


class Pace:
    """How many prompt tokens a step may read: `most` while nobody writes, else so many that it takes `gap_s`.

    What a step takes has a fixed part (the writers' tokens, a pass over the weights) and one for each token. Scaling
    the last step's tokens by how its time differed from the bound settles where the two together make up the bound.
    """

    def __init__(self, most: int, gap_s: float) -> None:
        self._most = most
        self._gap_s = gap_s
        self._beside = min(FEWEST, most)

    def tokens(self, *, writing: bool) -> int:
        return self._beside if writing else self._most

    def took(self, tokens: int, seconds: float) -> None:
        """A step that read so many tokens beside others that wrote has taken so long."""
        if tokens < self._beside and seconds <= self._gap_s:
            return  # a short rest of a prompt says nothing of longer slices
        fitting = int(tokens * min(2.0, max(0.5, self._gap_s / seconds)))
        self._beside = min(self._most, max(FEWEST, fitting))


def portions(jobs: Sequence[Job], tokens: int, left: Callable[[Job], int]) -> list[tuple[Job, int]]:
    """Which jobs read how many of a step's tokens: those first whose client, then who themselves, waited longest.

    Clients get equal parts, whatever number of jobs they have; what one cannot use goes on to the next job.
    """
    of_client: dict[bytes, list[Job]] = {}
    for job in sorted(jobs, key=lambda job: job.read_at):
        of_client.setdefault(job.request.client, []).append(job)
    queues = sorted(of_client.values(), key=lambda queue: queue[-1].read_at)
    share = max(SHARE, tokens // max(1, len(queues)))
    found = []
    for job in filter(None, chain.from_iterable(zip_longest(*queues))):
        if tokens <= 0:
            break
        count = min(share, tokens, left(job))
        tokens -= count
        found.append((job, count))
    return found
