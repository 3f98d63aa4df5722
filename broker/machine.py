"""The broker without its surroundings: `handle(event)` changes its state and returns the actions that follow."""

from __future__ import annotations

from broker.accepted import AcceptedNotices
from broker.admission import Admission
from broker.deadlines import Deadlines
from broker.events import (
    Action,
    Admit,
    Disconnected,
    Drain,
    Due,
    Ended,
    Event,
    Received,
    Refuse,
    Stop,
    Tick,
    Unreachable,
)
from broker.intake import Intake
from broker.leases import Leases
from broker.lost_clients import LostClients
from broker.records import Client, Id, Peer, Route, Task, Worker
from broker.state import Bounds, State
from broker.status import Rates, report, stories
from ssmprov import operations, wire
from ssmprov.errors import Busy, Refused, SsmprovError, Unsupported, WorkerLost, problem_of
from ssmprov.keys import Role, User

STALL_S = 0.5
"""If two ticks are further apart, the broker itself has stalled, and no peer is blamed for its silence."""

RETURN_S = 1.5
"""For this long after such a stall, a worker with a broken connection is not given up. Its silence timer has ended the
connection because of the stall, and it is about to come back."""

PROBE_S = 0.2
PROBE_IDLE_S = 5.0
MAX_UNANSWERED = 40
DRAIN_S = 10.0
CREDIT_OF_CLIENT = 1024
MAX_CREDIT = 1_000_000

FREQUENT = (wire.Request, wire.Final, wire.Partial)
"""The kinds of messages that a peer sends most often."""

PIECES = (wire.Partial, wire.Chunk)


class Broker:
    """The whole broker except sockets, clocks and signals."""

    def __init__(
        self,
        identity: Id,
        now: float,
        bounds: Bounds | None = None,
        pid: int = 0,
        expected: frozenset[str] = frozenset(),
        *,
        default: str = "",
        debug: bool = False,
    ) -> None:
        """`expected` are the configured models, whose workers may take a while to load; `default` is one of them.

        `debug` logs every step of every task.
        """
        self.identity = identity
        self.pid = pid
        self.state = State(
            bounds=bounds or Bounds(),
            now=now,
            started_at=now,
            expected=expected,
            chosen=default,
            identity=identity,
            debug=debug,
        )
        self.rates = Rates(now)
        self._leases = Leases(self.state)
        self._lost_clients = LostClients(self.state)
        self._admission = Admission(self.state)
        self._accepted = AcceptedNotices(self.state)
        self._intake = Intake(self.state, self._admission, self._accepted)
        self._deadlines = Deadlines(self.state)
        self._ticked_at = now
        self._returns_until = 0.0
        self._drain_until = 0.0

    def handle(self, event: Event) -> list[Action]:
        """Handle one event. A peer's mistakes are answered; only a defect of the broker raises (`IllegalMove`)."""
        state = self.state
        state.now = max(state.now, event.now)
        match event:
            case Received():
                try:
                    self._received(event)
                except SsmprovError as wrong:
                    state.send(event.route, wire.Bye(str(wrong)[:900], problem_of(wrong), "refused"))
            case Refuse():
                self._turn_out(event.route, event.error, "it sent something that is not a message")
            case Admit():
                for peer in self._admission.admit(event.users):
                    self._turn_out(peer.route, Refused("this key is no longer allowed"), "its key was revoked")
            case Unreachable():
                if not self._forgiven(event.route):
                    self._gone(event.route, "its connection broke")
            case Disconnected():
                self._probe_all()
            case Due():
                self._accepted.due()
            case Tick():
                self._tick()
            case Drain():
                self._drain()
            case Ended():
                self._lost_clients.ended(event.client)
        if self._drain_until and all(task.internal for task in state.tasks.values()):
            self._stop()
        actions, state.actions = state.actions, []
        return actions

    @property
    def due_at(self) -> float:
        """When to send it `Due`; infinite for never."""
        return self._accepted.due_at

    # -- messages

    def _received(self, event: Received) -> None:
        state = self.state
        peer = state.peers.get(event.route)
        message = event.message
        if peer is not None and peer.user is not event.user and peer.user.public != event.user.public:
            self._gone(event.route, "another key took its routing id")
            peer = None
        if peer is None:
            if isinstance(message, wire.Bye):
                return
            if self._admission.is_crowded(event.user):
                error = Busy("the broker has too many connections already: try again later", retry_ms=1000)
                state.send(event.route, wire.Bye(str(error), problem_of(error), "refused"))
                return
            if not isinstance(message, wire.Hello):
                state.send(event.route, wire.Bye("say HELLO first", code="hello_first"))
                return
            peer = state.peers[event.route] = Peer(route=event.route, user=event.user)
        peer.unanswered = 0
        if isinstance(message, FREQUENT):
            (self._from_worker if peer.worker else self._from_client)(peer, event)
        elif isinstance(message, wire.Hello):
            self._hello(peer, message)
        elif isinstance(message, wire.Bye):
            self._bye(peer, message)
        elif isinstance(message, wire.Register):
            self._register(peer, message, event.payloads)
        elif peer.worker:
            self._from_worker(peer, event)
        else:
            self._from_client(peer, event)

    def _hello(self, peer: Peer, hello: wire.Hello) -> None:
        state = self.state
        self._admission.check_id(hello.client, peer.user)
        if wire.VERSION not in hello.versions:
            wrong = Unsupported(f"this broker speaks version {wire.VERSION} only: update this program")
            state.send(peer.route, wire.Bye(str(wrong), problem_of(wrong), "refused"))
            return
        if peer.client != hello.client:
            self._lost_clients.part(peer)
        peer.client = hello.client
        if hello.role == "client":
            known = state.clients.setdefault(hello.client, Client(id=hello.client, user=peer.user))
            state.know(known, peer.user)
            if known.route not in (None, peer.route):
                state.peers.pop(known.route, None)
            known.route = peer.route
            known.process = hello.process
        answer = wire.Hello(
            self.identity, "broker", (wire.VERSION,), wire.HEARTBEAT_IVL_MS, CREDIT_OF_CLIENT, "ssmprov"
        )
        state.send(peer.route, answer)

    def _bye(self, peer: Peer, bye: wire.Bye) -> None:
        if bye.code == "not_served" and bye.error is not None:
            peer.user.check(Role.WORKER, "to tell why a model is not served")
            self.state.give_up(str(bye.error.details.get("model")), bye.error.message)
            return
        worker = self._worker(peer)
        if worker:
            self._leases.leave(worker)
            return
        client = self.state.clients.get(peer.client)
        self._gone(peer.route, "it said BYE")
        if client and client.route is None:
            self._lost_clients.abandon(client)

    def _register(self, peer: Peer, offer: wire.Register, payloads: list[bytes]) -> None:
        peer.user.check(Role.WORKER, "to serve a model")
        pins = wire.unpack(b"".join(payloads), dict[str, str]) if payloads else {}
        self._leases.register(peer, offer, pins)

    def _from_client(self, peer: Peer, event: Received) -> None:
        client = self.state.clients.get(peer.client)
        message = event.message
        if client is None or client.route != peer.route:  # it said HELLO as a worker, with the id of a client
            return
        if isinstance(message, wire.Request):
            if operations.find(message.op).room == "broker":
                self._status(client, peer.user, message)
            else:
                if peer.probe_at:  # it lives: a client that keeps asking need not be probed
                    peer.probe_at = self.state.now + PROBE_S
                self._intake.accept(client, peer.user, message, event.payloads)
            return
        task = self.state.tasks.get(getattr(message, "id", b""))
        if task is None or task.client != client.id:
            return
        if isinstance(message, wire.Cancel):
            self.state.cancel(task, message.mode)
        elif isinstance(message, wire.Credit):
            task.request.credit = min(task.request.credit + message.n, MAX_CREDIT)
            self._forward(task, wire.Credit(task.id, message.n))
        elif isinstance(message, wire.Chunk):
            worker = self.state.worker(task)
            if worker and task.phase == "running":
                message.epoch = worker.epoch
                self.state.send(worker.route, message, event.payloads)

    def _forward(self, task: Task, message: wire.Message) -> None:
        worker = self.state.worker(task)
        if worker and task.phase == "running":
            self.state.send(worker.route, message)

    def _from_worker(self, peer: Peer, event: Received) -> None:
        message = event.message
        worker = self._worker(peer)
        if worker is None:
            self.state.send(peer.route, wire.Bye("this lease has ended", code="lease_ended"))
            return
        worker.seen_at = self.state.now
        if isinstance(message, wire.Pulse):
            self._leases.pulse(worker, message)
            return
        task = worker.tasks.get(getattr(message, "id", b""))
        if task is None or getattr(message, "epoch", worker.epoch) != worker.epoch:
            self.state.counters.stale += 1
            return
        if isinstance(message, wire.Final):
            self._final(worker, task, message, event)
            return
        if isinstance(message, PIECES):
            self._partial(task, message, event)
        elif isinstance(message, wire.Credit):
            self._accepted.before(task)
            self.state.tell(task.client, message)

    def _partial(self, task: Task, message: wire.Partial | wire.Chunk, event: Received) -> None:
        """Keep a piece of the reply, whatever its attempt, and pass it on if it is for the current one."""
        piece = b"".join(event.payloads)
        end = message.offset + len(piece)
        if isinstance(message, wire.Partial) and message.offset <= len(task.text):
            if end > wire.MAX_TEXT:
                self._forward(task, wire.Cancel(task.id, "drop"))
                self.state.fail(
                    task, wire.WireError(f"the reply is larger than {wire.MAX_TEXT >> 20} MiB, the limit for a text")
                )
                return
            task.text[message.offset : end] = piece
        if message.attempt != task.attempt or message.seq != task.seq + 1:
            self.state.counters.stale += 1
            return
        if not task.seq:
            self.state.note(task, "its worker sends the first piece")
        task.seq = message.seq
        if message.offset <= task.sent:
            task.sent = max(task.sent, end)
        task.request.credit = max(0, task.request.credit - 1)
        self.state.counters.partials += 1
        if task.operation.file == "out":
            self.state.release(task)
        self._accepted.before(task)
        self.state.forward(task.client, event.frames)

    def _final(self, worker: Worker, task: Task, final: wire.Final, event: Received) -> None:
        if task.about is not None:
            self._leases.settled(task, final, event.payloads)
        fork = task if task.operation.warms and not self.state.draining else None
        if final.offset > len(task.text):
            lost = WorkerLost(f"part of the answer from {worker.name} was lost: send the request again")
            self.state.fail(task, lost)
        else:
            self.state.finish(task, final, event.payloads, event.frames)
            if fork:
                self._leases.warm(self.state.models[worker.model], fork, final.pins)
        if worker.state == "draining":
            self._leases.leave(worker)

    def _worker(self, peer: Peer) -> Worker | None:
        model = self.state.models.get(peer.model)
        worker = model.workers.get(peer.worker) if model else None
        return worker if worker and worker.route == peer.route else None

    def _status(self, client: Client, user: User, request: wire.Request) -> None:
        try:
            self._admission.check_rate(user)
            user.check(operations.STATUS.role, request.op)
            args = wire.unpack(request.args, operations.STATUS.args)
        except SsmprovError as error:
            self._intake.refuse(client, request, error)
            return
        result = report(self.state, self.rates, self.pid)
        result.story = stories(self.state, args.story)
        final, payloads = wire.final(wire.Final(request.id, request.attempt), result)
        self.state.send(client.route, final, payloads)

    # -- losses

    def _turn_out(self, route: Route, error: SsmprovError, why: str) -> None:
        self.state.send(route, wire.Bye(str(error)[:900], problem_of(error), "refused"))
        self._gone(route, why)

    def _gone(self, route: Route, why: str) -> None:
        peer = self.state.peers.pop(route, None)
        if peer is None:
            return
        worker = self._worker(peer)
        if worker:
            self._leases.lose(worker, why)
        self._lost_clients.part(peer)

    def _forgiven(self, route: Route) -> bool:
        """Whether a stall of the broker may have broken a worker's connection. If so, the worker is probed later."""
        state = self.state
        peer = state.peers.get(route)
        if state.now - self._ticked_at > STALL_S:  # the tick that will notice the stall is still to come
            self._returns_until = state.now + RETURN_S
        if peer is None or not peer.worker or state.now >= self._returns_until:
            return False
        peer.probe_at = self._returns_until
        return True

    # -- time

    def _tick(self) -> None:
        state = self.state
        now = state.now
        stalled = now - self._ticked_at
        self._ticked_at = now
        if stalled > STALL_S:
            self._forgive(stalled)
        self._probe()
        self._lost_clients.watch()
        for worker in self._deadlines.expire():
            self._leases.lose(worker, "it missed the deadline of a turn")
        self._leases.watch()
        state.answers.expire(now)
        self.rates.update(now, state.counters)
        if self._drain_until and now >= self._drain_until:
            self._stop()

    def _forgive(self, seconds: float) -> None:
        """After a stall of the broker, do not count anybody's silence during it."""
        self._returns_until = self.state.now + RETURN_S
        for model in self.state.models.values():
            for worker in model.workers.values():
                worker.seen_at = min(worker.seen_at + seconds, self.state.now)
                worker.progress_at = min(worker.progress_at + seconds, self.state.now)
        for client in self.state.clients.values():
            client.gone_at = min(client.gone_at + seconds, self.state.now)

    def _probe_all(self) -> None:
        """Make the next tick send something to everybody, to find out who has gone."""
        for peer in self.state.peers.values():
            peer.probe_at = 0.0

    def _probe(self) -> None:
        """Send something to each peer now and then: a ROUTER notices only when it sends that a peer is gone."""
        state = self.state
        for peer in list(state.peers.values()):
            if state.now < peer.probe_at:
                continue
            busy = bool(peer.worker) or bool((client := state.clients.get(peer.client)) and client.tasks)
            due = peer.probe_at > 0  # it is 0 to find out who has gone, which may take two sends
            pause = PROBE_S if busy or not due else PROBE_IDLE_S
            peer.unanswered += due
            peer.probe_at = state.now + min(pause * 1.5 ** max(0, peer.unanswered - 4), 30.0)
            if peer.unanswered > MAX_UNANSWERED and not peer.worker:
                self._gone(peer.route, "it does not answer pulses")
            else:
                state.send(peer.route, wire.Pulse())

    # -- the end

    def _drain(self) -> None:
        """Accept nothing more, answer what waits, end running turns after their current token, settle lost turns."""
        state = self.state
        if state.draining:
            return
        state.draining = True
        self._drain_until = state.now + DRAIN_S
        state.log("draining")
        for task in list(state.tasks.values()):
            if task.internal:
                continue
            if task.phase == "running":
                self._forward(task, wire.Cancel(task.id, "keep"))
            elif task.phase in ("queued", "ready"):
                state.turn_away(task)

    def _stop(self) -> None:
        state = self.state
        self._drain_until = 0.0
        for peer in state.peers.values():
            state.send(peer.route, wire.Bye("the broker is shutting down", code="leaving"))
        state.actions.append(Stop())
