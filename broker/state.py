"""The broker's tables, and the life of a task: accepted, queued for its names, given to a worker, answered once.

No socket and no clock: methods append to `actions`, which the machine hands to the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from broker.events import Action, Level, Log, Send
from broker.phases import EndedStories, Phase, check_move
from broker.placement import choose, pin_of, remember_hot, spread, worker_of
from broker.queues import Answers, NameLocks
from broker.ready import Lane
from broker.records import Client, Id, Owner, Peer, Route, Task, Worker
from broker.tables import Model
from ssmprov import ops, wire
from ssmprov.errors import (
    Cancelled,
    NotFound,
    Problem,
    SsmprovError,
    Unavailable,
    nearest,
    problem_of,
)
from ssmprov.keys import User

START_GRACE_S = 3.0
"""After its start the broker waits this long for workers to register before it calls a model unknown."""

ABSENT_S = 30.0
"""A task waits this long for a model without workers, or for the worker of a pinned context, to come back."""

MAX_ARGS = wire.MAX_HEADER - 4096
"""The limit of a request's arguments. It leaves room in the header for what the broker adds."""


@dataclass(slots=True, kw_only=True)
class Bounds:
    """The limits: queued requests in all and of one client, their bytes, bytes of kept answers, connections.

    `queue_per_client`, `peers_per_key` and `requests_per_s` apply to each key of the allow-list.
    """

    queue: int = 1024
    queue_per_client: int = 256
    queue_bytes: int = 256 * 2**20
    answers_bytes: int = 64 * 2**20
    peers: int = 4096
    peers_per_key: int = 32
    requests_per_s: float = 200.0


@dataclass(slots=True, kw_only=True)
class Counters:
    """What the broker has counted since its start."""

    accepted: int = 0
    answered: int = 0
    refused: int = 0
    partials: int = 0
    stale: int = 0


@dataclass(slots=True, kw_only=True)
class State:
    """All that the broker remembers. `of_key` holds the clients of each key.

    `limbo` holds the tasks whose model may still come. `held` holds those whose ACCEPTED waits, and until when.
    `chosen` is the default model of the configuration.
    `not_served` maps configured models that cannot be served to the reason.
    """

    bounds: Bounds
    now: float
    started_at: float
    peers: dict[Route, Peer] = field(default_factory=dict)
    clients: dict[Id, Client] = field(default_factory=dict)
    of_key: dict[str, set[Id]] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    tasks: dict[Id, Task] = field(default_factory=dict)
    limbo: dict[Id, Task] = field(default_factory=dict)
    held: dict[Id, tuple[float, Task]] = field(default_factory=dict)
    locks: NameLocks = field(default_factory=NameLocks)
    counters: Counters = field(default_factory=Counters)
    actions: list[Action] = field(default_factory=list)
    answers: Answers = field(init=False)
    queued: int = 0
    queued_bytes: int = 0
    draining: bool = False
    order: int = 0
    expected: frozenset[str] = frozenset()
    chosen: str = ""
    not_served: dict[str, str] = field(default_factory=dict)
    identity: Id = wire.NOBODY
    debug: bool = False
    ended: EndedStories = field(default_factory=EndedStories)

    def __post_init__(self) -> None:
        self.answers = Answers(self.bounds.answers_bytes)

    @property
    def default(self) -> str:
        """The model that is meant if none is named, even if it is not served now; '' if there is none."""
        known = self.models.keys() | self.expected
        return self.chosen or (next(iter(known)) if len(known) == 1 else "")

    # -- sending

    def send(self, route: Route | None, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        if route is not None:
            self.actions.append(Send(route, wire.encode(message, payloads)))

    def log(self, text: str, level: Level = "info") -> None:
        self.actions.append(Log(text, level))

    def forward(self, client: Id, frames: Sequence[bytes]) -> None:
        """Pass a worker's message on to a client as it came."""
        if (known := self.clients.get(client)) and known.route is not None:
            self.actions.append(Send(known.route, frames))

    def tell(self, client: Id, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        if known := self.clients.get(client):
            self.send(known.route, message, payloads)

    def know(self, client: Client, user: User) -> None:
        """A client has said HELLO."""
        client.user = user
        if client.key:
            self.of_key.setdefault(client.key, set()).add(client.id)

    def forget(self, client: Client) -> None:
        del self.clients[client.id]
        if ids := self.of_key.get(client.key):
            ids.discard(client.id)
            if not ids:
                del self.of_key[client.key]

    # -- the life of a task, step by step

    def add(self, task: Task, what: str) -> None:
        """Keep a new task; `what` begins its story: where it came from."""
        self.tasks[task.id] = task
        self.note(task, what)

    def enter(self, task: Task, phase: Phase, why: str = "") -> None:
        """Move a task to a phase: the only way there. Raises IllegalMove."""
        check_move(task.phase, phase, task.story)
        task.phase = phase
        self.note(task, f"{phase}: {why}" if why else phase)

    def note(self, task: Task, what: str) -> None:
        """Add a step to a task's story. It must not contain any text of a user."""
        task.story.add(self.now, what, task.worker)
        if self.debug:
            at = f" ({task.worker})" if task.worker else ""
            self.log(f"{task.request.op} {task.id.hex()}: {what}{at}", "debug")

    # -- what may come

    def break_off(self, task: Task, worker: Worker) -> None:
        """End a transfer whose connection broke, since nobody knows which of its CHUNKs arrived."""
        self.send(worker.route, wire.Cancel(task.id, "drop"))
        self.fail(task, Unavailable("the connection broke in the middle of the transfer: start it again"))

    def model_of(self, task: Task) -> Model | None:
        """The task's model; None while workers may still register after a start. Raises NotFound.

        A resent request waits for all of them, because the worker that already has it may be the last to come back.
        An operation that only reads the store does not wait, because doing it twice does no harm.
        """
        name = task.request.model
        model = self.models.get(name)
        if task.attempt > 1 and (task.slot or task.saves) and self.now - self.started_at < START_GRACE_S:
            return None
        if name in self.not_served and not (model and model.workers):
            raise NotFound(f"the model {name!r} is not served: {self.not_served[name]}", name=name)
        if model is None and not self.may_come(name):
            raise NotFound(f"no model {name!r} is served{nearest(name, self.models)}")
        if model is not None:
            self._place(model, task)
        return model

    def give_up(self, model: str, why: str) -> None:
        """A configured model cannot be served: whoever asks for it is told why at once."""
        if model in self.expected:
            self.not_served[model] = why
            self.leave_limbo(model)

    def may_come(self, model: str) -> bool:
        """Whether workers of an unserved model may still register after a start. Configured models get more time."""
        return self.now - self.started_at < (ABSENT_S if model in self.expected else START_GRACE_S)

    def _place(self, model: Model, task: Task) -> None:
        """Resolve the worker names in the arguments of a fork or a move, once."""
        args = task.args
        if isinstance(args, ops.Move):
            args.worker = task.pinned = worker_of(model, args.worker) if args.worker else ""
            task.request.args = wire.pack(args)
        elif isinstance(args, ops.Fork) and (args.on or args.spread):
            pins = spread(model, args.targets, args.on, args.spread)
            args.on, args.spread = [pins[target] for target in args.targets], False
            task.request.args = wire.pack(args)

    def count(self, task: Task, sign: int) -> None:
        """Add a task to what is queued, or with -1 remove it."""
        self.queued += sign
        self.queued_bytes += sign * task.bytes

    # -- queues and dispatch

    def enqueue(self, task: Task) -> None:
        """Queue a task for its names."""
        if self.locks.enter(task):
            self._ready([task])

    def leave_limbo(self, name: str) -> None:
        """Continue with the tasks that wait for a model: its workers have registered, or the wait is over."""
        for task in [task for task in self.limbo.values() if task.request.model == name]:
            try:
                if self.model_of(task) is None:
                    continue
            except SsmprovError as error:
                self.fail(task, error)
            else:
                del self.limbo[task.id]
                if self.locks.granted(task):
                    self._ready([task])

    def _ready(self, tasks: list[Task]) -> None:
        """Give tasks to workers with room. Waiting tasks cannot take that room: they would be running already."""
        for task in tasks:
            if task.phase != "queued" or task.id in self.limbo:
                continue
            model = self.models[task.request.model]
            if model.workers:
                task.waits_since = self.now
            worker = None if self.draining and not task.internal else choose(model, task)
            if worker is None:
                self.enter(task, "ready")
                model.ready.add(task, pin_of(model, task))
            else:
                self._start(task, worker)

    def dispatch(self, model: Model) -> None:
        """Give ready tasks to workers, owner by owner, and skip those that wait for a certain worker."""
        if not model.ready:
            return
        running: dict[Owner, int] = {}
        for task in (task for worker in model.workers.values() for task in worker.tasks.values() if task.slot):
            running[task.owner] = running.get(task.owner, 0) + 1
        full: set[Lane] = set()
        while found := model.ready.take(running, full, partial(choose, model), house_only=self.draining):
            task, worker = found
            self._start(task, worker)
            if task.slot:
                running[task.owner] = running.get(task.owner, 0) + 1

    def _start(self, task: Task, worker: Worker) -> None:
        if not task.internal:
            self.count(task, -1)
        task.worker = worker.name
        task.tries += 1
        self.enter(task, "running")
        worker.take(task)
        if task.slot and worker.running == 1:
            worker.progress_at = self.now
        self.hand(task, worker)

    def hand(self, task: Task, worker: Worker) -> None:
        """Send a task's REQUEST to its worker. A worker that already has it continues."""
        request = task.request
        request.epoch = worker.epoch
        request.client = task.client
        request.ttl_ms = max(1, int((task.deadline - self.now) * 1000))
        self.send(worker.route, request, task.payloads)

    def unqueue(self, task: Task) -> None:
        """Take a waiting task out of its queue."""
        if task.phase in ("queued", "ready") and not task.internal:
            self.count(task, -1)
        self.limbo.pop(task.id, None)
        if task.phase == "ready":
            self.models[task.request.model].ready.remove(task)

    def requeue(self, task: Task) -> None:
        """Give a task whose worker was lost to another worker. It keeps its names."""
        task.worker = ""
        task.waits_since = self.now
        self.enter(task, "ready", "another worker may do it")
        if not task.internal:
            self.count(task, +1)
        model = self.models[task.request.model]
        model.ready.add(task, pin_of(model, task))
        self.dispatch(model)

    def worker(self, task: Task) -> Worker | None:
        model = self.models.get(task.request.model)
        return model.workers.get(task.worker) if model else None

    def recall(self, model: Model) -> None:
        """Queue tasks again whose names turn out to be held by a task of a worker that came back."""
        for task in [task for task in model.ready if not self.locks.granted(task)]:
            model.ready.remove(task)
            self.enter(task, "queued", "a worker that came back holds its names")

    # -- answering

    def finish(
        self, task: Task, final: wire.Final, payloads: list[bytes], frames: Sequence[bytes] | None = None
    ) -> None:
        """Give a task its one terminal answer, and its names to those who wait for them.

        `frames` are the frames of the worker's answer. They are passed on if they are just what the client needs.
        """
        self.undecided(task)
        self.learn(task, final)
        self.unqueue(task)
        self.enter(task, "answered", final.error.code if final.error else "done")
        self.ended.keep(task.story)
        del self.tasks[task.id]
        self.held.pop(task.id, None)
        if known := self.clients.get(task.client):
            known.tasks.discard(task.id)
        self._detach(task)
        try:
            whole, text = self._whole(task, final, payloads)
        except wire.WireError as error:
            whole, text, frames = wire.Final(task.id, final.attempt, error=problem_of(error)), [], None
        if not task.internal:
            self.counters.answered += 1
            self.answers.keep(self.now, task.client, whole, text, len(frames[1]) if frames else 0)
            if task.unasked:
                pass
            elif frames and (final.attempt, final.seq, final.offset) == (task.attempt, task.seq, task.sent):
                self.forward(task.client, frames)
            else:
                self.send_answer(task.client, task.attempt, task.seq, task.sent, whole, text)
        self.release(task)

    def fail(self, task: Task, error: SsmprovError) -> None:
        """Answer a task with an error."""
        final = wire.Final(task.id, task.attempt, offset=len(task.text), error=problem_of(error))
        self.finish(task, final, [])

    def _detach(self, task: Task) -> None:
        worker = self.worker(task)
        if worker and worker.drop(task):
            self.dispatch(self.models[worker.model])

    def release(self, task: Task) -> None:
        """Give a task's names to those who wait. An export does so at its first CHUNK, when it has read everything."""
        if (task.shared or task.exclusive) and self.locks.has(task):
            self._ready(self.locks.leave(task))

    def undecided(self, settle: Task) -> None:
        """Tell the client of a lost turn that its outcome is unknown for now. The next worker does the settle."""
        about, settle.about = settle.about, None
        if about is not None:
            problem = wire.unpack(settle.args.problem, Problem)
            problem.details["committed"] = "unknown"
            problem.message += ". When a worker is back, the store will tell whether the turn was committed"
            self.finish(about, wire.Final(about.id, about.attempt, error=problem), [])

    def learn(self, task: Task, final: wire.Final) -> None:
        """Learn from an answer which contexts are hot or pinned where."""
        model = self.models.get(task.request.model)
        if model is None:
            return
        for name in final.hot:
            remember_hot(model, name, task.worker)
        for name, worker in final.pins.items():
            model.moved = True
            if worker:
                model.pins[name] = worker
            else:
                model.pins.pop(name, None)
        if final.pins:
            model.ready.regroup(partial(pin_of, model))

    def _whole(self, task: Task, final: wire.Final, payloads: list[bytes]) -> tuple[wire.Final, list[bytes]]:
        """The answer with all its text from byte 0, as it is kept for a resend."""
        if final.offset == 0:
            return final, payloads
        n = final.result_frames
        text = bytes(task.text[: final.offset]) + b"".join(payloads[n:])
        whole = msgspec.structs.replace(final, offset=0)
        return whole, [*payloads[:n], *wire.split_text(text)]

    def send_answer(
        self, client: Id, attempt: int, seq: int, have: int, final: wire.Final, payloads: list[bytes]
    ) -> None:
        """Send an answer to an attempt that was sent `seq` PARTIALs, with the text from byte `have` on."""
        n = final.result_frames
        text = b"".join(payloads[n:])
        have = min(have, len(text))
        answer = msgspec.structs.replace(final, attempt=attempt, seq=seq, offset=have, hot=[], pins={}, epoch=0)
        try:
            self.tell(client, answer, [*payloads[:n], *wire.split_text(text[have:])])
        except wire.WireError as error:  # the worker's answer is too large
            self.tell(client, wire.Final(final.id, attempt, error=problem_of(error)))

    # -- ending tasks early

    def cancel(self, task: Task, mode: str) -> None:
        """A client cancels: a waiting task is answered now, a running one by its worker."""
        self.note(task, "its client cancels it")
        if task.phase in ("queued", "ready"):
            self.fail(task, Cancelled(f"cancelled before it began: {untouched(task)}"))
        elif task.phase == "running" and (worker := self.worker(task)):
            self.send(worker.route, wire.Cancel(task.id, mode))

    def turn_away(self, task: Task) -> None:
        """Answer a waiting task because the broker is shutting down."""
        self.fail(task, Unavailable("the broker is shutting down: send the request again", retry_ms=1000))


def untouched(task: Task) -> str:
    """What a waiting task leaves behind. It may have begun at a lost worker, or under an earlier broker."""
    if task.attempt > 1 or task.tries:
        return "nothing has changed, unless an earlier attempt had begun"
    return "nothing was read and nothing has changed"
