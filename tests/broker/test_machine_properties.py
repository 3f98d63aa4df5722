"""Any interleaving of clients, workers, losses, delays and restarts: what the broker promises holds throughout."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import MODELS, Ask, Client, Link, Process, Run, World

from broker.records import Received
from ssmprov import ops, wire

NAMES = st.sampled_from(["a", "b", "c"])
SOME = st.sampled_from(["", "a", "b", "c"])
WORKERS = st.sampled_from(sorted(MODELS))
PICK = st.integers(0, 99)


def pick(items: list[Any], number: int) -> Any:
    return items[number % len(items)]


class Broker(RuleBasedStateMachine):
    """Each rule is one thing that somebody may do at any time; `World` checks after every event of the broker."""

    @initialize(names=st.sets(WORKERS, min_size=1))
    def begin(self, names: set[str]) -> None:
        self.world = World()
        for name in sorted(names):
            self.world.start(name)
        for client in self.world.clients:
            client.connect()
        self.world.flow()

    # -- who there is

    def connected(self) -> list[Client]:
        return [client for client in self.world.clients if client.link]

    def asks(self, *, ended: bool) -> list[tuple[Client, Ask]]:
        return [(client, ask) for client in self.connected() for ask in client.asks.values() if ask.ended == ended]

    def leased(self) -> list[Process]:
        return [process for process in self.world.processes.values() if process.link and process.leased]

    def runs(self) -> list[tuple[Process, Run]]:
        return [(process, run) for process in self.world.processes.values() for run in process.runs.values()]

    def starved(self) -> list[tuple[Client, Ask]]:
        return [(client, ask) for client, ask in self.asks(ended=False) if ask.credit == 0]

    def lost(self) -> list[Link]:
        return [link for link in self.world.links.values() if not link.stands and not link.gone]

    def links(self, *, up: bool) -> list[Link]:
        return [link for link in self.world.links.values() if (link.up if up else link.down)]

    # -- clients

    def _ask(self, number: int, op: str, args: Any, model: str, context: str = "", ttl_ms: int = 600_000) -> None:
        if connected := self.connected():
            client = pick(connected, number)
            request = wire.Request(
                self.world.count().to_bytes(16, "big"), op, model, context, ttl_ms=ttl_ms, args=wire.pack(args)
            )
            ask = client.asks[request.id] = Ask(request, b"x" * 300, ops.saves(request, args))
            client.send(ask)

    @rule(
        number=PICK,
        names=st.lists(st.tuples(SOME, SOME), min_size=1, max_size=3),
        stream=st.booleans(),
        model=st.sampled_from(["m", "m", "m", "n"]),
        ttl_ms=st.sampled_from([600_000, 600_000, 600_000, 3000]),
        flow=st.booleans(),
    )
    def turns(
        self, number: int, names: list[tuple[str, str]], stream: bool, model: str, ttl_ms: int, flow: bool
    ) -> None:
        for context, save in names:
            self._ask(number, "turn", ops.Turn(save=save, create=True, stream=stream), model, context, ttl_ms)
        if flow:
            self.world.flow()

    @rule(number=PICK, context=NAMES, copy=NAMES, on=st.sampled_from([[], ["0"], ["1"]]), spread=st.booleans())
    def fork(self, number: int, context: str, copy: str, on: list[str], spread: bool) -> None:
        self._ask(number, "ckpt.fork", ops.Fork([copy], on, spread, overwrite=True), "m", context)

    @rule(number=PICK, context=NAMES, worker=st.sampled_from(["", "0", "1"]))
    def move(self, number: int, context: str, worker: str) -> None:
        self._ask(number, "ckpt.move", ops.Move(worker), "m", context)

    @rule(number=PICK, name=NAMES)
    def remove(self, number: int, name: str) -> None:
        self._ask(number, "ckpt.rm", ops.Remove([name]), "m")

    @rule(number=PICK, model=st.sampled_from(["m", "n", "ghost"]))
    def list_names(self, number: int, model: str) -> None:
        self._ask(number, "ckpt.ls", ops.List(), model)

    @precondition(lambda self: self.starved())
    @rule(number=PICK)
    def grant(self, number: int) -> None:
        client, ask = pick(self.starved(), number)
        ask.credit += 1
        client.link.say(wire.Credit(ask.request.id, 1))

    @precondition(lambda self: self.asks(ended=False))
    @rule(number=PICK, mode=st.sampled_from(["keep", "drop", "close"]))
    def cancel(self, number: int, mode: str) -> None:
        client, ask = pick(self.asks(ended=False), number)
        client.link.say(wire.Cancel(ask.request.id, mode))

    @precondition(lambda self: self.asks(ended=True))
    @rule(number=PICK)
    def ask_again(self, number: int) -> None:
        client, ask = pick(self.asks(ended=True), number)
        if not ask.refused and not self.world.restarts:
            client.send(ask)

    @precondition(lambda self: self.asks(ended=False) and len(self.connected()) > 1)
    @rule(number=PICK)
    def steal(self, number: int) -> None:
        """A client uses, cancels and credits the id of another one's request."""
        client, ask = pick(self.asks(ended=False), number)
        thief = next(other for other in self.connected() if other is not client)
        thief.link.say(wire.Cancel(ask.request.id, "drop"))
        thief.link.say(wire.Credit(ask.request.id, 5))

    @precondition(lambda self: self.connected())
    @rule(number=PICK, loses=st.booleans(), seen=st.booleans())
    def client_drops(self, number: int, loses: bool, seen: bool) -> None:
        self.world.hang_up(pick(self.connected(), number), loses=loses, seen=seen)

    @precondition(lambda self: len(self.connected()) < len(self.world.clients))
    @rule(number=PICK)
    def client_connects(self, number: int) -> None:
        pick([client for client in self.world.clients if not client.link], number).connect()
        self.world.flow()

    @precondition(lambda self: self.connected())
    @rule(number=PICK)
    def client_leaves(self, number: int) -> None:
        pick(self.connected(), number).link.say(wire.Bye("closed"))

    # -- the net

    @precondition(lambda self: self.links(up=True))
    @rule(number=PICK)
    def one_message_up(self, number: int) -> None:
        self.world.deliver_up(pick(self.links(up=True), number))

    @precondition(lambda self: self.links(up=False))
    @rule(number=PICK)
    def one_message_down(self, number: int) -> None:
        self.world.deliver_down(pick(self.links(up=False), number))

    @precondition(lambda self: self.links(up=True) or self.links(up=False))
    @rule()
    def all_messages(self) -> None:
        self.world.flow()

    @precondition(lambda self: self.lost())
    @rule(number=PICK)
    def a_loss_is_seen(self, number: int) -> None:
        self.world.sees_gone(pick(self.lost(), number))

    @rule(number=PICK)
    def garbage(self, number: int) -> None:
        link = pick(list(self.world.links.values()), number)
        if link.stands:
            link.up.append([b"SSP1NOTHING", b""])

    # -- workers

    @precondition(lambda self: self.runs())
    @rule(number=PICK, steps=st.integers(1, 4), end=st.booleans(), flow=st.booleans())
    def work(self, number: int, steps: int, end: bool, flow: bool) -> None:
        process, run = pick(self.runs(), number)
        for _ in range(steps):
            process.work(run, b"%d," % self.world.count(), end=False)
        if end:
            process.work(run, b"", end=True)
        if flow:
            self.world.flow()

    @precondition(lambda self: len(self.world.processes) < len(MODELS))
    @rule(name=WORKERS)
    def worker_starts(self, name: str) -> None:
        if name not in self.world.processes:
            self.world.start(name)
            self.world.flow()

    @precondition(lambda self: self.world.processes)
    @rule(name=WORKERS, seen=st.booleans())
    def worker_dies(self, name: str, seen: bool) -> None:
        if process := self.world.processes.get(name):
            link = process.link
            self.world.kill(process)
            if link and seen:
                self.world.sees_gone(link)

    @precondition(lambda self: self.world.processes)
    @rule(name=WORKERS, loses=st.booleans())
    def worker_reconnects(self, name: str, loses: bool) -> None:
        if process := self.world.processes.get(name):
            self.world.hang_up(process, loses=loses)
            process.offer()

    @precondition(lambda self: self.world.processes)
    @rule(name=WORKERS)
    def worker_registers_again(self, name: str) -> None:
        """On the same connection, as after a silence of the broker's."""
        if (process := self.world.processes.get(name)) and process.link and not process.leaving:
            process.link.say(wire.Hello(process.pid.to_bytes(16, "big"), "worker"))
            process.register()

    @precondition(lambda self: self.world.processes)
    @rule(name=WORKERS)
    def worker_leaves(self, name: str) -> None:
        if (process := self.world.processes.get(name)) and process.link and process.leased:
            process.leaving = True
            process.link.say(wire.Bye("draining"))

    @precondition(lambda self: self.world.processes)
    @rule(name=WORKERS)
    def worker_falls_silent(self, name: str) -> None:
        if process := self.world.processes.get(name):
            process.mute = True

    @precondition(lambda self: self.leased())
    @rule(name=WORKERS, wrong=st.sampled_from([{}, {"store": "elsewhere"}, {"fingerprint": "e" * 64}]))
    def another_process_comes(self, name: str, wrong: dict[str, str]) -> None:
        """Under a name that is leased: it is refused, and nothing else changes."""
        if any(process.name == name for process in self.leased()):
            lease = self.world.broker.state.models[MODELS[name]].workers.get(name)
            stranger = Process(self.world, name, 100 + self.world.count())
            stranger.offer(**wrong)
            link = stranger.link
            assert link is not None
            while link.up:
                self.world.deliver_up(link)
            if lease is not None:
                assert self.world.broker.state.models[MODELS[name]].workers.get(name) is lease
                assert not stranger.leased
            self.world.hang_up(stranger, seen=True)

    @precondition(lambda self: self.runs())
    @rule(number=PICK, message=st.sampled_from(["partial", "final"]), old=st.sampled_from(["epoch", "attempt", "seq"]))
    def a_stale_message(self, number: int, message: str, old: str) -> None:
        """Of an old epoch, an old attempt or out of order: it is dropped, and nobody hears of it."""
        leased = [process for process in self.leased() if process.runs and not process.link.up]
        if not leased:
            return
        process = pick(leased, number)
        run = pick(list(process.runs.values()), number)
        task = self.world.broker.state.tasks.get(run.request.id)
        if task is None or task.worker != process.name or process.link.down:
            return
        epoch = process.epoch - (old == "epoch")
        if message == "final":
            frames = wire.encode(wire.Final(run.request.id, run.attempt, process.epoch - 1, result=wire.pack({})))
        else:
            attempt = run.attempt - (old == "attempt")
            seq = run.seq + (2 if old == "seq" else 1)
            frames = wire.encode(wire.Partial(run.request.id, seq, attempt, epoch, run.offset), [])
        before = (task.phase, task.seq, bytes(task.text), task.request.credit)
        queues = [len(link.down) for link in self.world.links.values()]
        message_of, payloads = wire.decode(frames)
        self.world.handle(Received(self.world.now, process.link.route, message_of, payloads, frames))
        assert (task.phase, task.seq, bytes(task.text), task.request.credit) == before
        assert [len(link.down) for link in self.world.links.values()] == queues

    # -- time and ends

    @rule(seconds=st.sampled_from([0.4, 1.0, 3.0, 6.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        if self.world.stopped:
            self.the_broker_is_killed()
        self.world.pass_time(seconds)

    @rule()
    def the_broker_stalls(self) -> None:
        self.world.now += 30.0

    @rule()
    @precondition(lambda self: self.world.restarts < 2)
    def the_broker_is_killed(self) -> None:
        self.world.restart()
        self.world.all_connect()

    @rule()
    @precondition(lambda self: self.world.restarts < 2)
    def the_broker_drains(self) -> None:
        self.world.drain()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle_down()


TestBroker = pytest.mark.timeout(120)(Broker.TestCase)
TestBroker.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
