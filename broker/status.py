"""What `status` reports, and its rates."""

from __future__ import annotations

from itertools import chain, islice

from broker.phases import find
from broker.state import Counters, State
from ssmprov import ops

SHOWN_CONTEXTS = 1000


class Rates:
    """Requests and PARTIALs per second, averaged over a few seconds."""

    def __init__(self, now: float) -> None:
        self.requests = 0.0
        self.partials = 0.0
        self._at = now
        self._counted = (0, 0)

    def update(self, now: float, counters: Counters) -> None:
        seconds = now - self._at
        if seconds < 1.0:
            return
        counted = (counters.answered, counters.partials)
        blend = min(1.0, seconds / 4)
        self.requests += blend * ((counted[0] - self._counted[0]) / seconds - self.requests)
        self.partials += blend * ((counted[1] - self._counted[1]) / seconds - self.partials)
        self._at, self._counted = now, counted


def stories(state: State, prefix: str) -> list[ops.Story]:
    """The stories of the requests whose id begins with `prefix`, the newest first; none for ''."""
    if not prefix:
        return []
    known = chain((task.story for task in reversed(state.tasks.values())), reversed(state.ended))
    return [
        ops.Story(
            story.id.hex(),
            story.op,
            story.model,
            [ops.StoryStep(round(state.now - step.at, 3), step.what, step.worker) for step in story.steps],
        )
        for story in find(prefix.lower(), known)
    ]


def report(state: State, rates: Rates, pid: int) -> ops.StatusResult:
    """What the broker knows about itself, its models, workers, hot contexts and pins."""
    waiting: dict[str, int] = {}
    for task in state.tasks.values():
        if task.phase in ("queued", "ready"):
            waiting[task.request.model] = waiting.get(task.request.model, 0) + 1
    counters = state.counters
    broker = ops.BrokerStatus(
        pid=pid,
        uptime_s=round(state.now - state.started_at, 3),
        clients=sum(client.route is not None for client in state.clients.values()),
        queued=state.queued,
        running=sum(task.phase == "running" for task in state.tasks.values()),
        accepted=counters.accepted,
        answered=counters.answered,
        refused=counters.refused,
        requests_per_s=round(rates.requests, 2),
        partials_per_s=round(rates.partials, 2),
        draining=state.draining,
    )
    models, workers = [], []
    contexts: dict[str, str] = {}
    pins: dict[str, str] = {}
    for name, model in sorted(state.models.items()):
        card = model.card
        models.append(
            ops.ModelStatus(
                name=name,
                runtime=card.runtime,
                fingerprint=card.fingerprint,
                architecture=card.architecture,
                dtype=card.dtype,
                settings=card.settings,
                vocabulary=card.vocabulary,
                state_bytes=card.state_bytes,
                workers=len(model.workers),
                queued=waiting.get(name, 0),
            )
        )
        holders = list(model.hot.values())
        for _, worker in sorted(model.workers.items()):
            stalled = bool(worker.tasks) and state.now - worker.progress_at > 5
            workers.append(
                ops.WorkerStatus(
                    name=worker.name,
                    model=name,
                    pid=worker.pid,
                    host=worker.host,
                    epoch=worker.epoch,
                    state="stalled" if stalled and worker.state == "ready" else worker.state,
                    slots=worker.slots,
                    running=worker.running,
                    hot_bytes=worker.pulse.hot_bytes,
                    hot=holders.count(worker.name),
                    tokens_per_s=round(worker.rates[0], 1),
                    prefill_per_s=round(worker.rates[1], 1),
                )
            )
        newest = islice(reversed(model.hot.items()), SHOWN_CONTEXTS)
        contexts |= {f"{name}:{context}": worker for context, worker in newest}
        pins |= {f"{name}:{context}": worker for context, worker in islice(model.pins.items(), SHOWN_CONTEXTS)}
    return ops.StatusResult(
        broker=broker,
        models=models,
        workers=workers,
        contexts=contexts,
        pins=pins,
        default=state.default,
        not_served=dict(state.not_served),
    )
