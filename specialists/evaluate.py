"""Evaluation: a candidate answers the probes of a contract through the broker, and a scorer scores its answers.

Every answer is a turn that saves nothing, so it runs on its own fork, which is then discarded. As many turns run at
once as the workers have slots.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from clients.blocking import Client
from specialists.asking import Answer, Candidate, ask
from specialists.contract import Contract, ProbeTable
from specialists.scorers import Score, scorer_of
from specialists.scorers.base import ends_cleanly

SHOWN = 600
"""How many characters of an answer are stored."""

TTL_S = 600.0
MAX_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one probe, and its score."""

    answer: Answer
    score: Score

    @property
    def clean(self) -> bool:
        """Whether the answer ended by itself, right after its intended end."""
        return self.answer.ended and ends_cleanly(self.answer.text, self.score)


@dataclass(slots=True)
class Probed:
    """A probe with its samples."""

    probe: ProbeTable
    samples: list[Sample] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether all samples meet all expectations and end cleanly."""
        return all(sample.score.passes and sample.clean for sample in self.samples)


@dataclass(slots=True)
class Evaluation:
    """The result of an evaluation. A metric that could not be measured is None. `unjudged` counts such samples."""

    metrics: dict[str, float | None]
    probes: list[Probed]
    unjudged: int
    workers: list[str]


@dataclass(frozen=True, slots=True)
class Asking:
    """How to ask all probes: the sampling settings, the tokens per answer at most, the seed of the first sample."""

    max_tokens: int
    seed: int = 0
    temperature: float = 0.0

    @property
    def values(self) -> dict[str, float]:
        return {"temp": self.temperature, "pen_rep": 1.0, "pen_freq": 0.0, "pen_pres": 0.0}


def evaluate(
    client: Client, who: Candidate, contract: Contract, asking: Asking, said: Callable[[int, int], None] | None = None
) -> Evaluation:
    """Ask every probe of a contract. `said` gets the numbers of finished and of all samples. Raises broker errors."""
    judge = scorer_of(contract.scorer)
    work = [(place, sample) for place in range(len(contract.probe)) for sample in range(contract.samples)]
    found = [Probed(probe) for probe in contract.probe]

    def one(place: int, sample: int) -> Sample:
        probe = contract.probe[place]
        answer = ask(
            client,
            who,
            probe.prompt,
            values=asking.values,
            seed=asking.seed + sample,
            max_tokens=asking.max_tokens,
            ttl_s=TTL_S,
        )
        return Sample(answer, judge(answer.text, probe.expecting(contract.starts)))

    with ThreadPoolExecutor(slots_of(client, who.model)) as pool:
        futures = [(place, pool.submit(one, place, sample)) for place, sample in work]
        try:
            for done, (place, future) in enumerate(futures, 1):
                found[place].samples.append(future.result())
                if said is not None:
                    said(done, len(work))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Evaluation(
        metrics_of(found),
        found,
        sum(sample.score.valid is None for probed in found for sample in probed.samples),
        sorted({sample.answer.worker for probed in found for sample in probed.samples}),
    )


def slots_of(client: Client, model: str) -> int:
    """How many turns of a model can run at once, over all its workers."""
    workers = [worker for worker in client.status().workers if worker.model == model]
    return max(1, min(MAX_AT_ONCE, sum(worker.slots for worker in workers)))


def metrics_of(probes: Sequence[Probed]) -> dict[str, float | None]:
    """The metrics of `specialists.stages` that follow from answers. A probe's value is the mean of its samples.

    Out-of-distribution probes count only in `ood_pass_rate`.
    """
    usual = [probed for probed in probes if probed.probe.kind == "in"]
    judged = [probed for probed in usual if all(sample.score.valid is not None for sample in probed.samples)]
    foreign = [probed for probed in probes if probed.probe.kind == "ood"]
    return {
        "valid_rate": _mean(judged, lambda sample: bool(sample.score.valid)),
        "prefix_integrity": _mean(usual, lambda sample: sample.score.prefix),
        "eos_clean_stop": _mean(usual, lambda sample: sample.clean),
        "adherence": _mean(usual, lambda sample: sample.score.adherence),
        "ood_pass_rate": round(statistics.fmean(probed.passes for probed in foreign), 4) if foreign else None,
    }


def _mean(probes: Sequence[Probed], value: Callable[[Sample], float]) -> float | None:
    means = [statistics.fmean(map(value, probed.samples)) for probed in probes]
    return round(statistics.fmean(means), 4) if means else None
