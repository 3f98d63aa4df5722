"""Simulated clients, workers and stores around a broker: what each would do, and what each must never see.

Messages lie in the queues of links until they are delivered; a link may break with what is on it. Whatever a client
is told is held against the store and against the text that a worker really wrote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import msgspec

from broker.events import Drain, Due, Event, Kill, Received, Refuse, Send, Stop, Tick, Unreachable
from broker.machine import Broker
from broker.phases import MOVES
from broker.records import Task
from broker.state import Bounds
from ssmprov import operations, ops, wire
from ssmprov.errors import Problem

BOUNDS = Bounds(queue=8, queue_per_client=5, queue_bytes=4000, answers_bytes=6000, peers=9)
SLOTS = 2
MODELS = {"m/0": "m", "m/1": "m", "n/0": "n"}
HOSTS = {"m/0": "here", "m/1": "far", "n/0": "here"}
WINDOW = 3


@dataclass(eq=False)
class Link:
    """A connection: what is under way on it, whether it stands, and whether the broker's next send finds it gone."""

    route: bytes
    end: Client | Process
    up: deque[Sequence[bytes]] = field(default_factory=deque)
    down: deque[Sequence[bytes]] = field(default_factory=deque)
    stands: bool = True
    gone: bool = False

    def say(self, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        if self.stands:
            self.up.append(wire.encode(message, payloads))


@dataclass
class Outcome:
    """What a store holds for a request id, for good: an answer, or the loss that a settle decided."""

    result: Any = None
    text: bytes = b""
    problem: Problem | None = None
    pins: dict[str, str] = field(default_factory=dict)


class Store:
    """The outcomes, heads and pins that all workers of a model share, whichever of them dies."""

    def __init__(self) -> None:
        self.outcomes: dict[bytes, Outcome] = {}
        self.heads: dict[str, int] = {}
        self.pins: dict[str, str] = {}
        self.effects: dict[bytes, int] = {}

    def once(self, request_id: bytes, outcome: Outcome, heads: dict[str, int] | None = None) -> Outcome:
        """The outcome that stands: the first one that was brought."""
        if request_id in self.outcomes:
            return self.outcomes[request_id]
        self.outcomes[request_id] = outcome
        if outcome.problem is None:
            self.effects[request_id] = self.effects.get(request_id, 0) + 1
            self.heads |= heads or {}
            for name, worker in outcome.pins.items():
                self.pins[name] = worker
                if not worker:
                    del self.pins[name]
        return outcome


@dataclass(eq=False)
class Run:
    """One request at a worker: what it has written, and what of it was sent."""

    request: wire.Request
    args: Any
    text: bytes = b""
    offset: int = 0
    seq: int = 0
    credit: int = 0
    attempt: int = 1
    begun: bool = False
    dropped: bool = False
    answer: tuple[wire.Final, Any, bytes] | None = None

    @property
    def turn(self) -> bool:
        return isinstance(self.args, ops.Turn)


class Process:
    """A worker as workers/worker.py is one: streams within its credit, an answer kept until it can be sent."""

    def __init__(self, world: World, name: str, pid: int) -> None:
        self.world = world
        self.name = name
        self.pid = pid
        self.epoch = 0
        self.leased = False
        self.offers = 0
        self.alive = True
        self.mute = False
        self.leaving = False
        self.link: Link | None = None
        self.runs: dict[bytes, Run] = {}
        self.progress = 0

    @property
    def store(self) -> Store:
        return self.world.stores[MODELS[self.name]]

    def say(self, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        assert self.link is not None
        self.link.say(message, payloads)

    def hello(self) -> wire.Hello:
        return wire.Hello(self.pid.to_bytes(16, "big"), "worker")

    def offer(self, *, store: str = "", fingerprint: str = "") -> None:
        """Say HELLO on a new link, and ask for the lease."""
        self.world.hang_up(self)
        self.offers = 0
        self.link = self.world.connect(self)
        self.say(self.hello())
        self.register(store, fingerprint)

    def register(self, store: str = "", fingerprint: str = "") -> None:
        assert self.link is not None
        self.leased = False
        self.offers += 1
        for run in self.runs.values():
            run.credit = run.seq = run.offset = 0
        running = [
            wire.Running(
                id=run.request.id,
                attempt=run.attempt,
                client=run.request.client,
                op=run.request.op,
                context=run.request.context,
                save=run.args.save if run.turn else "",
            )
            for run in self.runs.values()
        ]
        model = MODELS[self.name]
        offer = wire.Register(
            worker=self.name,
            model=wire.ModelCard(name=model, runtime="sim", fingerprint=fingerprint or "f" * 64),
            store=store or f"store of {model}",
            slots=SLOTS,
            pid=self.pid,
            started=1,
            host=HOSTS[self.name],
            epoch=self.epoch,
            stall_ms=60_000,
            running=running,
        )
        self.link.say(offer, [bytes(wire.pack(self.store.pins))])

    def hears(self, message: wire.Message) -> None:
        match message:
            case wire.Register():
                self.offers -= 1
                self.epoch, self.leased = message.epoch, self.offers == 0
            case wire.Request():
                self.takes(message)
            case wire.Credit():
                if run := self.runs.get(message.id):
                    self.resume(run, message)
            case wire.Cancel():
                if (run := self.runs.get(message.id)) and run.turn and run.answer is None:
                    self.cancel(run, message.mode)
            case wire.Bye():
                refused = message.error is not None and not message.error.retry_ms
                if refused or (message.error is None and self.leased and message.code == "lease_ended"):
                    self.world.kill(self)
                elif message.code == "hello_first" and self.link and not self.leaving:
                    self.say(self.hello())
                    self.register()
        self.flush()

    def takes(self, request: wire.Request) -> None:
        if run := self.runs.get(request.id):
            self.resume(run, wire.Credit(request.id, request.credit, request.attempt, request.have))
            return
        self.world.check_pin(self, request)
        args = operations.decode_args(request)
        self.runs[request.id] = Run(request, args, credit=request.credit, attempt=request.attempt)

    @staticmethod
    def resume(run: Run, credit: wire.Credit) -> None:
        if not credit.attempt:
            run.credit += credit.n
            return
        run.attempt, run.credit, run.seq = credit.attempt, credit.n, credit.seq
        run.offset = min(credit.have, len(run.text))

    def work(self, run: Run, piece: bytes, *, end: bool) -> None:
        """One step of a request: write a piece of its reply, or come to its end."""
        self.progress += 1
        if run.answer is not None:
            return
        if not run.turn:
            self.operate(run)
        elif not run.begun:
            self.begin(run)
        elif end:
            self.commit(run, "end")
        else:
            run.text += piece
        self.flush()

    def begin(self, run: Run) -> None:
        run.begun = True
        if run.args.save and (outcome := self.store.outcomes.get(run.request.id)):
            self.answer_outcome(run, outcome)
        elif run.dropped:
            self.fail(run, Problem("cancelled", "cancelled before it began: nothing has changed"))
        elif run.request.have:
            self.fail(run, Problem("worker_lost", "the rest of an answer was lost: send it again"))
        else:
            self.world.serial += 1
            run.text = b"<%d:" % self.world.serial

    def commit(self, run: Run, stop: str) -> None:
        text = run.text + b">"
        result = ops.TurnResult(stop=stop, name=run.args.save)
        if run.args.save:
            self.world.serial += 1
            outcome = Outcome(result, text)
            self.answer_outcome(run, self.store.once(run.request.id, outcome, {run.args.save: self.world.serial}))
        else:
            hot = [run.request.context] if run.request.context else []
            self.world.written[run.request.id] = text
            run.answer = (wire.Final(run.request.id, hot=hot), result, text)

    def answer_outcome(self, run: Run, outcome: Outcome) -> None:
        if outcome.problem is not None:
            self.fail(run, outcome.problem)
        elif not outcome.text.startswith(run.text):
            self.fail(run, Problem("conflict", "another run of this turn has committed"))
        else:
            hot = [run.args.save] if run.turn else []
            pins = {name: self.store.pins.get(name, "") for name in outcome.pins}  # as they are by now
            run.answer = (wire.Final(run.request.id, hot=hot, pins=pins), outcome.result, outcome.text)

    def cancel(self, run: Run, mode: str) -> None:
        if not run.begun:
            run.dropped = True
        elif mode == "drop":
            self.fail(run, Problem("cancelled", "the turn was cancelled: the context is unchanged"))
        else:
            self.commit(run, "cancelled")
        self.flush()

    def fail(self, run: Run, problem: Problem) -> None:
        run.answer = (wire.Final(run.request.id, error=problem), None, b"")

    def operate(self, run: Run) -> None:
        """An operation on the store, done at once."""
        store, args, request_id = self.store, run.args, run.request.id
        result: Any = {}
        match args:
            case ops.Settle():
                lost = Outcome(problem=wire.unpack(args.problem, Problem))
                stands = store.once(args.request, lost)
                result = ops.Settled(stands.problem is None, wire.pack(stands.result))
                run.answer = (wire.Final(request_id), result, stands.text)
                return
            case ops.Fork():
                pins = dict(zip(args.targets, args.on, strict=True)) if args.on else {}
                outcome = Outcome(ops.ForkResult("ab" * 32, args.targets, pins), pins=pins)
            case ops.Move():
                outcome = Outcome(pins={run.request.context: args.worker})
            case ops.Remove():
                outcome = Outcome(pins=dict.fromkeys(args.names, ""))
            case _:
                run.answer = (wire.Final(request_id), result, b"")
                return
        self.answer_outcome(run, store.once(request_id, outcome))

    def flush(self) -> None:
        """Send what may be sent: pieces within their credit, and answers."""
        if not (self.leased and self.link and self.link.stands):
            return
        for run in list(self.runs.values()):
            streamed = run.turn and run.args.stream
            while streamed and run.credit and run.offset < len(run.text):
                run.seq, run.credit = run.seq + 1, run.credit - 1
                partial = wire.Partial(run.request.id, run.seq, run.attempt, self.epoch, run.offset)
                self.link.say(partial, [run.text[run.offset :]])
                run.offset = len(run.text)
            if run.answer is not None:
                final, result, text = run.answer
                final.epoch, final.attempt, final.seq = self.epoch, run.attempt, run.seq
                final.offset = min(run.offset, len(text)) if final.error is None else run.offset
                del self.runs[run.request.id]
                self.link.say(*wire.final(final, result, text[final.offset :]))

    def pulse(self) -> None:
        if self.leased and self.link:
            self.link.say(wire.Pulse(progress=self.progress, running=len(self.runs)))


@dataclass(eq=False)
class Ask:
    """A client's request, and what came of it."""

    request: wire.Request
    payload: bytes
    saves: bool
    attempt: int = 0
    seq: int = 0
    text: bytearray = field(default_factory=bytearray)
    credit: int = 0
    accepted: set[int] = field(default_factory=set)
    answers: dict[int, wire.Final] = field(default_factory=dict)
    refused: bool = False

    @property
    def ended(self) -> bool:
        return self.attempt in self.answers


class Client:
    """A client as clients/core.py is one."""

    def __init__(self, world: World, client: bytes) -> None:
        self.world = world
        self.id = client
        self.link: Link | None = None
        self.asks: dict[bytes, Ask] = {}

    def say(self, message: wire.Message) -> None:
        assert self.link is not None
        self.link.say(message)

    def connect(self) -> None:
        """Say HELLO on a new link, and send again whatever is open."""
        self.world.hang_up(self)
        self.link = self.world.connect(self)
        self.greet()

    def greet(self) -> None:
        self.say(wire.Hello(self.id))
        for ask in self.asks.values():
            if not ask.ended:
                self.send(ask)

    def send(self, ask: Ask) -> None:
        """The next attempt of a request; it goes on from the text that has arrived."""
        ask.attempt += 1
        ask.seq = 0
        ask.credit = WINDOW
        if self.link:
            request = msgspec.structs.replace(ask.request, attempt=ask.attempt, have=len(ask.text), credit=ask.credit)
            self.link.say(request, [ask.payload] if ask.payload else [])

    def hears(self, message: wire.Message, payloads: list[bytes]) -> None:
        match message:
            case wire.Partial():
                self.partial(self.asks[message.id], message, b"".join(payloads))
            case wire.Final():
                self.final(self.asks[message.id], message, payloads)
            case wire.Accepted():
                assert message.place < BOUNDS.queue
                assert message.attempt not in self.asks[message.id].answers, "ACCEPTED came after its FINAL"
                self.asks[message.id].accepted.add(message.attempt)
            case wire.Pulse():
                if self.link:
                    self.link.say(wire.Pulse())
            case wire.Bye() if message.error is None and self.link:
                self.greet()

    def partial(self, ask: Ask, message: wire.Partial, piece: bytes) -> None:
        if message.attempt != ask.attempt:
            return
        assert message.attempt not in ask.answers, "a PARTIAL came after its FINAL"
        assert message.attempt in ask.accepted, "a PARTIAL came before its ACCEPTED"
        assert message.seq == ask.seq + 1, "the PARTIALs of an attempt have a gap"
        assert ask.credit > 0, "more PARTIALs came than were granted"
        ask.seq, ask.credit = message.seq, ask.credit - 1
        self.grow(ask, message.offset, piece)

    @staticmethod
    def grow(ask: Ask, offset: int, piece: bytes) -> None:
        assert offset <= len(ask.text), "the text has a gap"
        assert ask.text[offset:] == piece[: len(ask.text) - offset], "two pieces of the text disagree"
        ask.text[offset:] = piece

    def final(self, ask: Ask, message: wire.Final, payloads: list[bytes]) -> None:
        assert message.attempt not in ask.answers, "an attempt was answered twice"
        ask.answers[message.attempt] = message
        if message.attempt < ask.attempt and message.offset > len(ask.text):
            return  # it was under way when the client asked again, and so were the PARTIALs before it
        if message.error is not None and message.error.code in ("busy", "not_found", "bad_request"):
            ask.refused = True
            return
        if message.error is None:
            self.grow(ask, message.offset, b"".join(payloads[message.result_frames :]))
        if message.attempt == ask.attempt:
            assert message.seq == ask.seq, "FINAL counts other PARTIALs than have come"
        for attempt, other in ask.answers.items():
            if other.error is not None and other.error.details.get("committed") == "unknown":
                continue  # nobody knew then, and by now somebody may
            generations = {self.world.generations[ask.request.id, number] for number in (attempt, message.attempt)}
            if len(generations) == 1:
                same = (other.error, bytes(other.result)) == (message.error, bytes(message.result))
                assert same, "a request that was sent again got another answer"
        self.world.audit(ask, message)


class World:
    """Everybody, what lies between them, and the broker in the middle."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.stores = {model: Store() for model in ("m", "n", "ghost")}
        self.links: dict[bytes, Link] = {}
        self.clients = [Client(self, bytes([65 + i]) * 16) for i in range(3)]
        self.processes: dict[str, Process] = {}
        self.written: dict[bytes, bytes] = {}
        self.adopted: set[bytes] = set()
        self.generations: dict[tuple[bytes, int], int] = {}
        self.serial = 0
        self.restarts = 0
        self.disturbed = False
        self.stopped = False
        self._counter = 0
        self.broker = self._new_broker()

    def _new_broker(self) -> Broker:
        return Broker(self.count().to_bytes(16, "little"), self.now, BOUNDS, expected=frozenset(MODELS.values()))

    def count(self) -> int:
        self._counter += 1
        return self._counter

    # -- links

    def connect(self, end: Client | Process) -> Link:
        link = Link(b"link%d" % self.count(), end)
        self.links[link.route] = link
        return link

    def hang_up(self, end: Client | Process, *, loses: bool = True, seen: bool = False) -> None:
        """A link breaks: what was on it for its end is gone, what was on it for the broker perhaps not."""
        link, end.link = end.link, None
        if link is None:
            return
        link.stands = False
        link.down.clear()
        if loses:
            link.up.clear()
        if seen:
            self.sees_gone(link)

    def sees_gone(self, link: Link) -> None:
        link.gone = True
        self.handle(Unreachable(self.now, link.route))

    # -- the broker

    def handle(self, event: Event) -> None:
        events = deque([event])
        while events and not self.stopped:
            for action in self.broker.handle(events.popleft()):
                match action:
                    case Send():
                        link = self.links[action.route]
                        if link.gone:
                            events.append(Unreachable(self.now, action.route))
                        elif link.stands:
                            link.down.append(action.frames)
                    case Kill():
                        for process in list(self.processes.values()):
                            if process.pid == action.pid and HOSTS[process.name] == "here":
                                self.kill(process)
                    case Stop():
                        self.stopped = True
            self.check()

    def deliver_up(self, link: Link) -> None:
        frames = link.up.popleft()
        try:
            message, payloads = wire.decode(frames)
        except wire.WireError as error:
            self.handle(Refuse(self.now, link.route, error))
            return
        if isinstance(message, wire.Register) and self.restarts:
            self.adopted |= {item.id for item in message.running}
        if isinstance(message, wire.Request):
            state = self.broker.state
            last = self.generations.get((message.id, 0), 0)
            known = message.id in state.answers or message.id in state.tasks
            self.generations[message.id, 0] = self.generations[message.id, message.attempt] = last + (not known)
        task = self._streams(link, message)
        self.handle(Received(now=self.now, route=link.route, message=message, payloads=payloads, frames=frames))
        taken = task is None or task.seq == message.seq or task.phase != "running" or self.stopped
        assert taken, "an honest PARTIAL was dropped"

    def _streams(self, link: Link, message: wire.Message) -> Task | None:
        """The task that a worker's PARTIAL is for, where it is of the lease and the attempt that stand."""
        if not isinstance(message, wire.Partial):
            return None
        for model in self.broker.state.models.values():
            for worker in model.workers.values():
                task = worker.tasks.get(message.id)
                if task and worker.route == link.route and worker.epoch == message.epoch:
                    return task if task.attempt == message.attempt else None
        return None

    def deliver_down(self, link: Link) -> None:
        message, payloads = wire.decode(link.down.popleft())
        if isinstance(link.end, Client):
            link.end.hears(message, payloads)
        elif link.end.alive:
            link.end.hears(message)

    def flow(self, rounds: int = 1000) -> None:
        """Deliver everything that lies in queues, and what follows from it."""
        for _ in range(rounds):
            moved = False
            for link in list(self.links.values()):
                while link.up:
                    self.deliver_up(link)
                    moved = True
                while link.down and link.stands:
                    self.deliver_down(link)
                    moved = True
            if not moved:
                return
        raise AssertionError("the messages come to no end")

    def pass_time(self, seconds: float) -> None:
        """Time in small steps, in which workers pulse and everybody hears it."""
        for _ in range(max(1, round(seconds / 0.4))):
            self.now += 0.4
            for process in self.processes.values():
                if not process.mute:
                    process.progress += 1
                    process.pulse()
            for link in list(self.links.values()):
                if isinstance(link.end, Process):
                    while link.up:
                        self.deliver_up(link)
            if self.now >= self.broker.due_at:
                self.handle(Due(self.now))
            self.handle(Tick(self.now))

    def restart(self) -> None:
        """The broker dies, and another one begins with nothing."""
        self.restarts += 1
        self.stopped = False
        for client in self.clients:
            self.hang_up(client)
        for process in self.processes.values():
            self.hang_up(process)
            process.leased = False
        self.links.clear()
        self.disturbed = True
        self.broker = self._new_broker()

    def all_connect(self) -> None:
        for client in self.clients:
            client.connect()
        for process in list(self.processes.values()):
            process.offer()

    # -- workers

    def start(self, name: str) -> Process:
        """A fresh process under a name; the one that had it has ended."""
        if old := self.processes.get(name):
            self.kill(old)
        process = self.processes[name] = Process(self, name, 100 + self.count())
        process.offer()
        return process

    def kill(self, process: Process) -> None:
        process.alive = False
        self.hang_up(process)
        process.runs.clear()
        process.leased = False
        if self.processes.get(process.name) is process:
            del self.processes[process.name]

    # -- what must hold

    def check(self) -> None:
        """The broker's own tables, after every event."""
        state = self.broker.state
        tasks = list(state.tasks.values())
        waiting = [task for task in tasks if task.phase in ("queued", "ready") and not task.internal]
        assert state.queued == len(waiting)
        assert state.queued_bytes == sum(task.bytes for task in waiting)
        assert state.answers.bytes <= BOUNDS.answers_bytes
        assert len(state.peers) <= BOUNDS.peers
        assert len(state.locks) <= sum(len(task.shared) + len(task.exclusive) for task in tasks)
        for client in state.clients.values():
            assert client.tasks <= state.tasks.keys()
        assert state.held.keys() <= state.tasks.keys()
        for task in tasks:
            told = [phase for step in task.story.steps if (phase := step.what.partition(":")[0]) in MOVES]
            assert not told or told[-1] == task.phase, f"a phase was written past the table:\n{task.story}"
        assert {name for ids in state.of_key.values() for name in ids} <= state.clients.keys()
        for name, model in state.models.items():
            assert sorted(task.order for task in model.ready) == sorted(
                task.order for task in tasks if task.phase == "ready" and task.request.model == name
            )
            for worker in model.workers.values():
                assert worker.running == sum(task.slot for task in worker.tasks.values())
                given = [task for task in worker.tasks.values() if task.slot and task.id not in self.adopted]
                assert len(given) <= worker.slots, "a worker has more turns than slots"
                assert all(task.phase == "running" for task in worker.tasks.values())
        self._check_order([task for task in tasks if task.id not in self.adopted])

    @staticmethod
    def _check_order(tasks: list[Task]) -> None:
        """Where two tasks conflict, the later one waits: so none overtakes, and no two run."""
        for one, other in combinations(sorted(tasks, key=lambda task: task.order), 2):
            if one.request.model != other.request.model:
                continue
            conflict = one.exclusive & (other.exclusive | other.shared) | one.shared & other.exclusive
            assert not conflict or other.phase == "queued", f"{sorted(conflict)} is held against the order of arrival"

    def check_pin(self, process: Process, request: wire.Request) -> None:
        """A turn on a pinned context came to the worker of its pin. What a restart left in the dark is excused."""
        if request.op == "turn" and not self.disturbed:
            pinned = process.store.pins.get(request.context, process.name)
            assert pinned == process.name, f"{request.context} is pinned to {pinned}, but {process.name} got its turn"

    def audit(self, ask: Ask, final: wire.Final) -> None:
        """Hold what a client was told against the store, and its text against what was written."""
        store = self.stores[ask.request.model]
        if final.error is not None:
            self.disturbed |= ask.saves and ask.request.op != "turn"
            assert "part of the answer" not in final.error.message
        outcome = store.outcomes.get(ask.request.id)
        committed = outcome is not None and outcome.problem is None
        assert store.effects.get(ask.request.id, 0) <= 1
        if ask.request.op == "turn" and final.error is None:
            written = outcome.text if ask.saves and outcome else self.written.get(ask.request.id)
            assert bytes(ask.text) == written, "the reply is not what the worker wrote"
        if not ask.saves:
            return
        if final.error is not None and final.error.details.get("committed") is True:
            assert outcome is not None
            assert not outcome.text.startswith(ask.text), "an answer that was committed is not told"
        if final.error is None:
            assert committed, "an answer acknowledges what was not saved"
        elif final.error.details.get("committed") is False or final.error.code in ("cancelled", "timeout"):
            doubtful = "earlier attempt" in final.error.message or self.restarts
            assert not committed or doubtful, "what was said to be lost or cancelled has taken effect"

    def settle_down(self) -> None:
        """Peace: everybody comes back, works and hears; in the end every request is answered and nothing is left."""
        if self.stopped or self.broker.state.draining:
            self.restart()
        for process in list(self.processes.values()):
            process.mute = False
            if process.leaving:
                self.kill(process)
        self.flow()
        for name in MODELS:
            process = self.processes.get(name)
            if process is None:
                self.start(name)
            elif process.link is None or not process.leased:
                process.offer()
        for client in self.clients:
            client.connect()
        for link in list(self.links.values()):
            if not link.stands and not link.gone:
                link.up.clear()
                self.sees_gone(link)
        for _ in range(400):
            self.flow()
            for name in MODELS:
                process = self.processes.get(name)
                if process is None:
                    self.start(name)
                elif not process.leased:
                    process.offer()  # it was told to try again: a former life may still hold its name
            for process in list(self.processes.values()):
                for run in list(process.runs.values()):
                    process.work(run, b".", end=True)
            for client in self.clients:
                for ask in client.asks.values():
                    if client.link and not ask.ended and ask.credit == 0:
                        ask.credit = WINDOW
                        client.link.say(wire.Credit(ask.request.id, WINDOW))
            self.flow()
            if not self.broker.state.tasks and not any(process.runs for process in self.processes.values()):
                break
            self.pass_time(0.4)
        self.flow()
        self.check_rest()

    def check_rest(self) -> None:
        state = self.broker.state
        for client in self.clients:
            for ask in client.asks.values():
                assert ask.ended, f"{ask.request.op} was never answered"
        assert not state.tasks
        assert not state.limbo
        assert not len(state.locks)
        assert (state.queued, state.queued_bytes) == (0, 0)
        assert not any(model.ready for model in state.models.values())
        assert not any(client.tasks for client in state.clients.values())

    def drain(self) -> None:
        self.handle(Drain(self.now))
