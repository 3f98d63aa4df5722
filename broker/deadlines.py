"""How long tasks wait: for their turn, for a missing worker, for a worker that hangs."""

from __future__ import annotations

from broker.placement import pin_of
from broker.records import Task, Worker
from broker.state import ABSENT_S, State, untouched
from ssmprov.errors import NotFound, SsmprovError, TimedOut, Unavailable, nearest

LATE_S = 5.0
"""A worker itself answers a request at its deadline. If it is this late, it counts as hung."""


class Deadlines:
    """The part of the machine that watches deadlines."""

    def __init__(self, state: State) -> None:
        self._state = state

    def expire(self) -> list[Worker]:
        """End tasks that have waited too long. Returns the workers that missed the deadline of a turn."""
        state = self._state
        hung = []
        for name in {task.request.model for task in state.limbo.values()} & state.models.keys():
            state.leave_limbo(name)
        for task in list(state.tasks.values()):
            if task.phase in ("queued", "ready"):
                if error := self._waited_alone(task) if task.internal else self._waited(task):
                    state.fail(task, error)
            elif task.phase == "running" and state.now >= task.deadline + LATE_S:
                worker = state.worker(task)
                if task.slot and worker and state.now - worker.progress_at >= LATE_S:
                    hung.append(worker)
                elif not task.slot:
                    op = task.request.op
                    effect = "it changes nothing" if task.operation.effect == "none" else "it may still take effect"
                    state.fail(task, TimedOut(f"{op} did not end in time; {effect}"))
        return hung

    def _waited_alone(self, task: Task) -> SsmprovError | None:
        """The error that ends a waiting task of the broker, if any. A lost turn's client need not wait as long."""
        state = self._state
        model = state.models[task.request.model]
        if not model.workers or state.now - task.waits_since >= ABSENT_S:
            state.undecided(task)
        if state.now >= task.deadline or (task.pinned and task.pinned not in model.workers):
            return Unavailable("no worker was available")
        return None

    def _waited(self, task: Task) -> SsmprovError | None:
        """The error that ends a waiting task of a client, if any."""
        state = self._state
        if state.now >= task.deadline:
            return TimedOut(f"the request's time ran out while it waited: {untouched(task)}")
        if task.id in state.limbo:
            if state.may_come(task.request.model) or task.request.model in state.models:
                return None
            known = [name for name, model in state.models.items() if model.workers]
            return NotFound(f"no model {task.request.model!r} is served{nearest(task.request.model, known)}")
        model = state.models[task.request.model]
        if not model.workers and state.now - max(model.empty_at, task.waits_since) >= ABSENT_S:
            return Unavailable(f"no worker of {task.request.model} has come back: see `ssmprov status`")
        pinned = pin_of(model, task) if task.phase == "ready" else ""
        if pinned and pinned not in model.workers and state.now - task.waits_since >= ABSENT_S:
            return Unavailable(
                f"{task.loads} is pinned to {pinned}, which is not running: start it, or "
                f"run `ssmprov ckpt move {task.loads} WORKER`"
            )
        return None
