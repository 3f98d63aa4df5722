"""How much of the waiting prompts a step reads: little enough that no stream stalls, and fairly between clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, zip_longest

from workers.job import Job

FEWEST = 16
"""Tokens that a step reads at least, and a job at a time: with fewer, most of it would be the pass over the weights."""

AIM = 0.9
"""Of the bound: no two steps take the same time, and the longest is to keep it, too."""


RELIEF = 4
"""A prompt that has waited for so many steps of each one of its client's comes first: a long one is read on, too."""


class Pace:
    """How many prompt tokens a step may read: `most` while nobody writes, else so many that it takes less than `gap_s`.

    What a step takes has a fixed part (the writers' tokens, a pass over the weights) and one for each token. Scaling
    the last step's tokens by how its time differed from what is aimed at settles where the two together make it up.
    """

    def __init__(self, most: int, gap_s: float) -> None:
        self._most = most
        self._aim_s = AIM * gap_s
        self._beside = min(FEWEST, most)

    def tokens(self, *, writing: bool) -> int:
        return self._beside if writing else self._most

    def took(self, tokens: int, seconds: float) -> None:
        """A step that read so many tokens beside others that wrote has taken so long."""
        if tokens < self._beside and seconds <= self._aim_s:
            return  # a short rest of a prompt says nothing of longer slices
        fitting = int(tokens * min(2.0, max(0.5, self._aim_s / seconds)))
        self._beside = min(self._most, max(FEWEST, fitting))


def portions(jobs: Sequence[Job], tokens: int, left: Callable[[Job], int], step: int) -> list[tuple[Job, int]]:
    """Which jobs read how many of a step's tokens: first those whose client has waited longest.

    Clients get equal parts, whatever number of jobs they have; what one cannot use goes on to the next job. Of one
    client's jobs the shortest comes first, so that of several prompts one can be answered soon, where side by side
    all would be late; but before it one that has waited for long.
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
