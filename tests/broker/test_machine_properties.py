"""Any interleaving of clients, workers, losses, delays and restarts: what the broker promises holds throughout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from world import MODELS, Ask, Client, Link, Process, Run, World

from broker.events import Received
from ssmprov import operations, ops, wire

T = TypeVar("T")

NAMES = ["a", "b", "c"]
MODES = ["keep", "drop", "close"]
WORKERS = sorted(MODELS)
TROUBLE = ["dies", "dies unseen", "reconnects", "reconnects late", "registers again", "leaves", "falls silent"]
PARTING = ["drops", "drops unseen", "drops late", "leaves"]
STRANGERS = ["second", "store", "fingerprint"]
STALE = ["old epoch", "old attempt", "out of order", "old final"]
PICK = st.integers(0, 99)


class Nothing(Exception):
    """There is nobody and nothing to do it with."""


def pick(items: list[T], number: int) -> T:
    if not items:
        raise Nothing
    return items[number % len(items)]


class Scene(RuleBasedStateMachine):
    """Each rule is one thing that somebody may do at any time; `World` checks after every event of the broker."""

    @initialize(workers=st.sets(st.sampled_from(WORKERS), min_size=1))
    def begin(self, workers: set[str]) -> None:
        self.world = World()
        for name in sorted(workers):
            self.world.start(name)
        for client in self.world.clients:
            client.connect()
        self.world.flow()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle_down()

    # -- who and what there is

    def connected(self) -> list[Client]:
        return [client for client in self.world.clients if client.link]

    def away(self) -> list[Client]:
        return [client for client in self.world.clients if not client.link]

    def asks(self, *, ended: bool) -> list[tuple[Client, Ask]]:
        return [(client, ask) for client in self.connected() for ask in client.asks.values() if ask.ended == ended]

    def starved(self) -> list[tuple[Client, Ask]]:
        return [(client, ask) for client, ask in self.asks(ended=False) if ask.credit == 0]

    def running(self) -> list[tuple[Process, Run]]:
        return [(process, run) for process in self.world.processes.values() for run in process.runs.values()]

    def lost(self) -> list[Link]:
        return [link for link in self.world.links.values() if not link.stands and not link.gone]

    def going_up(self) -> list[Link]:
        return [link for link in self.world.links.values() if link.up]

    def going_down(self) -> list[Link]:
        return [link for link in self.world.links.values() if link.down]

    # -- work

    def ask(self, number: int, op: str, args: Any, model: str, context: str, ttl_ms: int) -> None:
        client = pick(self.connected(), number)
        request_id = self.world.count().to_bytes(16, "big")
        request = wire.Request(request_id, op, model, context, ttl_ms=ttl_ms, args=wire.pack(args))
        ask = client.asks[request.id] = Ask(request, b"x" * 300, operations.saves(request, args))
        client.send(ask)

    @precondition(lambda self: self.connected())
    @rule(
        number=PICK,
        names=st.lists(st.tuples(st.sampled_from(["", *NAMES]), st.sampled_from(["", *NAMES])), min_size=1, max_size=3),
        stream=st.booleans(),
        model=st.sampled_from(["m", "m", "m", "n"]),
        ttl_ms=st.sampled_from([600_000, 600_000, 600_000, 3000]),
        flow=st.booleans(),
    )
    def turns(
        self, number: int, names: list[tuple[str, str]], stream: bool, model: str, ttl_ms: int, flow: bool
    ) -> None:
        for context, save in names:
            self.ask(number, "turn", ops.Turn(save=save, create=True, stream=stream), model, context, ttl_ms)
        if flow:
            self.world.flow()

    @precondition(lambda self: self.connected())
    @rule(
        number=PICK,
        op=st.sampled_from(["fork", "spread", "move", "rm", "ls", "probe"]),
        name=st.sampled_from(NAMES),
        other=st.sampled_from(NAMES),
        worker=st.sampled_from(["", "0", "1"]),
        model=st.sampled_from(["m", "m", "m", "ghost"]),
    )
    def operation(self, number: int, op: str, name: str, other: str, worker: str, model: str) -> None:
        operations: dict[str, tuple[str, Any]] = {
            "fork": ("ckpt.fork", ops.Fork([other], [worker] if worker else [], overwrite=True)),
            "spread": ("ckpt.fork", ops.Fork([name, other], spread=True, overwrite=True)),
            "move": ("ckpt.move", ops.Move(worker)),
            "rm": ("ckpt.rm", ops.Remove([name])),
            "ls": ("ckpt.ls", ops.List()),
            "probe": ("probe", ops.Probe()),
        }
        self.ask(number, *operations[op], model, name, 600_000)

    @precondition(lambda self: self.running())
    @rule(number=PICK, steps=st.integers(1, 4), end=st.booleans(), flow=st.booleans())
    def work(self, number: int, steps: int, end: bool, flow: bool) -> None:
        process, run = pick(self.running(), number)
        for _ in range(steps):
            process.work(run, b"%d," % self.world.count(), end=False)
        if end:
            process.work(run, b"", end=True)
        if flow:
            self.world.flow()

    @precondition(lambda self: self.starved())
    @rule(number=PICK)
    def grant(self, number: int) -> None:
        client, ask = pick(self.starved(), number)
        ask.credit += 1
        client.say(wire.Credit(ask.request.id, 1))

    @precondition(lambda self: self.asks(ended=False))
    @rule(number=PICK, mode=st.sampled_from(MODES))
    def cancel(self, number: int, mode: str) -> None:
        client, ask = pick(self.asks(ended=False), number)
        client.say(wire.Cancel(ask.request.id, mode))

    @precondition(lambda self: self.asks(ended=True))
    @rule(number=PICK)
    def ask_again(self, number: int) -> None:
        """What was answered already."""
        client, ask = pick(self.asks(ended=True), number)
        if not ask.refused and not self.world.restarts:
            client.send(ask)

    # -- the net

    @precondition(lambda self: self.going_up())
    @rule(number=PICK)
    def one_message_up(self, number: int) -> None:
        self.world.deliver_up(pick(self.going_up(), number))

    @precondition(lambda self: self.going_down())
    @rule(number=PICK)
    def one_message_down(self, number: int) -> None:
        self.world.deliver_down(pick(self.going_down(), number))

    @precondition(lambda self: self.going_up() or self.going_down())
    @rule()
    def all_messages(self) -> None:
        self.world.flow()

    @precondition(lambda self: self.lost())
    @rule(number=PICK)
    def a_loss_is_seen(self, number: int) -> None:
        self.world.sees_gone(pick(self.lost(), number))

    # -- trouble

    @precondition(lambda self: self.connected())
    @rule(number=PICK, parting=st.sampled_from(PARTING))
    def a_client_goes(self, number: int, parting: str) -> None:
        client = pick(self.connected(), number)
        if parting == "leaves":
            client.say(wire.Bye("closed"))
        else:
            self.world.hang_up(client, loses=parting != "drops late", seen=parting == "drops")

    @precondition(lambda self: self.away())
    @rule(number=PICK)
    def a_client_comes(self, number: int) -> None:
        pick(self.away(), number).connect()
        self.world.flow()

    @precondition(lambda self: self.world.processes)
    @rule(worker=st.sampled_from(WORKERS), trouble=st.sampled_from(TROUBLE))
    def a_worker_has_trouble(self, worker: str, trouble: str) -> None:
        process = self.world.processes.get(worker)
        if process is None or process.link is None:
            return
        match trouble:
            case "dies" | "dies unseen":
                link = process.link
                self.world.kill(process)
                if trouble == "dies":
                    self.world.sees_gone(link)
            case "reconnects" | "reconnects late":
                self.world.hang_up(process, loses=trouble == "reconnects")
                process.offer()
            case "registers again" if not process.leaving:  # as after a silence of the broker's
                process.say(process.hello())
                process.register()
            case "leaves" if process.leased:
                process.leaving = True
                process.say(wire.Bye("draining"))
            case "falls silent":
                process.mute = True

    @precondition(lambda self: len(self.world.processes) < len(MODELS))
    @rule(worker=st.sampled_from(WORKERS))
    def a_worker_starts(self, worker: str) -> None:
        if worker not in self.world.processes:
            self.world.start(worker)
            self.world.flow()

    @rule(worker=st.sampled_from(WORKERS), stranger=st.sampled_from(STRANGERS))
    def another_process_comes(self, worker: str, stranger: str) -> None:
        """Under a name that is leased, with another store or other weights: it is refused, and nothing else changes."""
        model = self.world.broker.state.models.get(MODELS[worker])
        lease = model.workers.get(worker) if model else None
        if model is None or lease is None:
            return
        process = Process(self.world, worker, self.world.count() + 100)
        process.offer(**{} if stranger == "second" else {stranger: "another"})
        link = process.link
        assert link is not None
        while link.up:
            self.world.deliver_up(link)
        assert model.workers[worker] is lease
        assert not process.leased
        self.world.hang_up(process, seen=True)

    @precondition(lambda self: self.running())
    @rule(number=PICK, stale=st.sampled_from(STALE))
    def a_stale_message(self, number: int, stale: str) -> None:
        """Of an old epoch, an old attempt or out of order: it is dropped, and nobody hears of it."""
        process, run = pick(self.running(), number)
        task = self.world.broker.state.tasks.get(run.request.id)
        link = process.link
        quiet = link and process.leased and not link.up and not link.down
        if not quiet or task is None or task.worker != process.name or task.phase != "running":
            return
        epoch, attempt, seq = process.epoch, run.attempt, run.seq + 1
        message = {
            "old epoch": wire.Partial(run.request.id, seq, attempt, epoch - 1, run.offset),
            "old attempt": wire.Partial(run.request.id, seq, attempt - 1, epoch, run.offset),
            "out of order": wire.Partial(run.request.id, seq + 1, attempt, epoch, run.offset),
            "old final": wire.Final(run.request.id, attempt, epoch - 1, result=wire.pack({})),
        }[stale]
        before = (task.phase, task.seq, bytes(task.text), task.request.credit)
        under_way = [len(link.down) for link in self.world.links.values()]
        frames = wire.encode(message)
        message, payloads = wire.decode(frames)
        self.world.handle(
            Received(now=self.world.now, route=link.route, message=message, payloads=payloads, frames=frames)
        )
        assert (task.phase, task.seq, bytes(task.text), task.request.credit) == before
        assert [len(link.down) for link in self.world.links.values()] == under_way

    @precondition(lambda self: self.asks(ended=False) and len(self.connected()) > 1)
    @rule(number=PICK)
    def a_thief_comes(self, number: int) -> None:
        """A client cancels and credits another one's request."""
        client, ask = pick(self.asks(ended=False), number)
        thief = pick([other for other in self.connected() if other is not client], number)
        thief.say(wire.Cancel(ask.request.id, "drop"))
        thief.say(wire.Credit(ask.request.id, 5))

    @rule(number=PICK)
    def garbage_comes(self, number: int) -> None:
        link = pick(list(self.world.links.values()), number)
        if link.stands:
            link.up.append([b"SSP1NOTHING", b""])

    # -- time

    @rule(seconds=st.sampled_from([0.4, 1.0, 3.0, 6.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        if self.world.stopped:
            self.world.restart()
            self.world.all_connect()
        self.world.pass_time(seconds)

    @rule(trouble=st.sampled_from(["stalls", "is killed", "drains"]))
    def the_broker_has_trouble(self, trouble: str) -> None:
        if trouble == "stalls":
            self.world.now += 30.0
        elif self.world.restarts < 2:
            if trouble == "drains":
                self.world.drain()
            else:
                self.world.restart()
                self.world.all_connect()


TestScene = Scene.TestCase
TestScene.settings = settings(
    max_examples=250,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)

WEIGHTS: dict[Callable[..., None], float] = {
    Scene.turns: 8,
    Scene.operation: 4,
    Scene.work: 14,
    Scene.grant: 4,
    Scene.cancel: 1,
    Scene.ask_again: 1,
    Scene.one_message_up: 6,
    Scene.one_message_down: 6,
    Scene.all_messages: 8,
    Scene.a_loss_is_seen: 1,
    Scene.a_client_goes: 2,
    Scene.a_client_comes: 4,
    Scene.a_worker_has_trouble: 4,
    Scene.a_worker_starts: 4,
    Scene.another_process_comes: 0.5,
    Scene.a_stale_message: 1,
    Scene.a_thief_comes: 0.5,
    Scene.garbage_comes: 0.1,
    Scene.time_passes: 2,
    Scene.the_broker_has_trouble: 0.5,
}


def arguments(random: Random, action: Callable[..., None]) -> dict[str, Any]:
    """Values for the parameters of a rule."""
    choice, name = random.choice, ["", *NAMES]
    pools: dict[str, Any] = {
        "number": random.randrange(100),
        "names": [(choice(name), choice(name)) for _ in range(random.randint(1, 3))],
        "stream": random.random() < 0.7,
        "model": choice(["m", "m", "m", "n" if action is Scene.turns else "ghost"]),
        "ttl_ms": choice([600_000, 600_000, 600_000, 3000]),
        "flow": random.random() < 0.6,
        "op": choice(["fork", "spread", "move", "rm", "ls", "probe"]),
        "name": choice(NAMES),
        "other": choice(NAMES),
        "worker": choice(["", "0", "1"] if action is Scene.operation else WORKERS),
        "steps": random.randint(1, 4),
        "end": random.random() < 0.5,
        "mode": choice(MODES),
        "parting": choice(PARTING),
        "trouble": choice(TROUBLE if action is Scene.a_worker_has_trouble else ["stalls", "is killed", "drains"]),
        "stranger": choice(STRANGERS),
        "stale": choice(STALE),
        "seconds": choice([0.4, 0.4, 1.0, 3.0, 6.0, 40.0]),
    }
    wanted = [parameter for parameter in inspect.signature(action).parameters if parameter != "self"]
    return {parameter: pools[parameter] for parameter in wanted}


@pytest.mark.parametrize("seed", range(100))
def test_a_long_walk_among_them(seed: int) -> None:
    """Denser than what is drawn above: more work than trouble, with another mixture for each seed."""
    random = Random(seed)
    scene = Scene()
    Scene.begin(scene, set(random.sample(WORKERS, random.randint(1, 3))))
    weights = [weight * random.choice([0.2, 1, 1, 3]) for weight in WEIGHTS.values()]
    for action in random.choices(list(WEIGHTS), weights, k=250):
        with suppress(Nothing):
            action(scene, **arguments(random, action))
    scene.teardown()
