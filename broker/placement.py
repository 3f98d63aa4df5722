"""Which worker takes a task: the pinned one, else the one that holds its context hot, else the least loaded."""

from __future__ import annotations

from collections.abc import Sequence

from broker.records import Task, Worker
from broker.tables import Model
from ssmprov.errors import NotFound, nearest
from ssmprov.names import parse_worker, worker_name

MAX_STATE_OPS = 64
"""The state operations that one worker may have open. They take no slot, only a place in its store's queue."""

MAX_PROBES = 2
"""The probes that one worker may have: one is computed while the next one is prepared."""

MAX_HOT = 10_000


def has_room(worker: Worker, task: Task) -> bool:
    if worker.state != "ready":
        return False
    if task.slot:
        return worker.running < worker.slots
    if task.room == "probe" and sum(other.room == "probe" for other in worker.tasks.values()) >= MAX_PROBES:
        return False
    return len(worker.tasks) - worker.running < MAX_STATE_OPS


def choose(model: Model, task: Task) -> Worker | None:
    """The worker for a task; None if it has to wait."""
    if pinned := pin_of(model, task):
        worker = model.workers.get(pinned)
        return worker if worker and has_room(worker, task) else None
    free = [worker for worker in model.workers.values() if has_room(worker, task)]
    if len(free) < 2:
        return free[0] if free else None
    if task.loads and (hot := model.workers.get(model.hot.get(task.loads, ""))) in free:
        return hot
    return min(free, key=lambda worker: (worker.running / worker.slots, len(worker.tasks), worker.name))


def pin_of(model: Model, task: Task) -> str:
    """The only worker that may take a task, '' for any: the one it names, or the one its context is pinned to."""
    if task.pinned or not task.slot:
        return task.pinned
    return model.pins.get(task.loads, "")


def remember_hot(model: Model, name: str, worker: str) -> None:
    model.hot[name] = worker
    model.hot.move_to_end(name)
    if len(model.hot) > MAX_HOT:
        model.hot.popitem(last=False)


def worker_of(model: Model, text: str) -> str:
    """A worker's full name from what was typed. Raises NotFound with the nearest names."""
    owner, index = parse_worker(text, model.card.name)
    name = worker_name(owner, index)
    if name not in model.workers:
        raise NotFound(f"there is no worker {text!r} of {model.card.name}{nearest(name, model.workers)}")
    return name


def spread(model: Model, targets: Sequence[str], on: Sequence[str], everywhere: bool) -> dict[str, str]:
    """Which target is pinned to which worker: to those of `on` in turn, to all workers in turn, or to none."""
    if on:
        workers = [worker_of(model, text) for text in on]
    elif everywhere:
        order = sorted(model.workers.values(), key=lambda w: (w.running / w.slots, parse_worker(w.name)[1]))
        workers = [worker.name for worker in order]
    else:
        return {}
    if not workers:
        raise NotFound(f"{model.card.name} has no worker to pin to")
    return {target: workers[i % len(workers)] for i, target in enumerate(targets)}
