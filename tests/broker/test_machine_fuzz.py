"""Any message of the protocol, from anybody, at any time: the broker answers or ignores it, and never fails.

The values are drawn from small pools, so that messages often mean something to each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from rig import CARD, IDENTITY, Peer, Rig, id_of, turn

from broker.events import Unreachable
from broker.state import Bounds
from ssmprov import operations, ops, wire
from ssmprov.errors import Problem

STEPS = 300
BOUNDS = Bounds(queue=6, queue_per_client=4, queue_bytes=5000, answers_bytes=8000, peers=8)
IDS = [*map(id_of, range(1, 6)), wire.NOBODY, IDENTITY[:8] + bytes(7) + b"\1", IDENTITY[:8] + bytes(7) + b"\2"]
NAMES = ["", "a", "b", "a~2", "@x/1", "../x", "#" + "ab" * 8, "ü", "x" * 200]
WORKERS = ["talk/0", "talk/1", "talk/2", "0", "1", "walk/0", "talk", "talk/99999", ""]
COUNTS = [0, 0, 1, 2, 3, 4, 7, 2**31, 2**53 - 1]
OTHERS = [None, True, -1, 2**64 - 1, 0.5, float("nan"), "text", b"bytes", [], [[]], {}, {"a": {"a": {}}}]


def draw(random: Random, kind: type[wire.Message]) -> wire.Message:
    """A message whose every field has one of the values that such a field may have."""
    choice = random.choice

    def args() -> Any:
        return choice(
            [
                ops.Turn(save=choice(NAMES), stream=choice([True, False])),
                ops.Fork([choice(NAMES), choice(NAMES)], choice([[], [choice(WORKERS)]]), choice([True, False])),
                ops.Move(choice(WORKERS)),
                ops.Remove([choice(NAMES)]),
                ops.Settle(choice(IDS), wire.pack(problem())),
                ops.Settled(choice([True, False])),
                choice(OTHERS),
            ]
        )

    def problem() -> Problem:
        return Problem(choice(["busy", "cancelled", "", "x"]), choice(NAMES), choice(COUNTS), {"a": choice(OTHERS)})

    def card() -> wire.ModelCard:
        return choice([CARD, CARD, CARD, wire.ModelCard(name=choice(["talk", "walk"]), fingerprint=choice(NAMES))])

    def running() -> list[wire.Running]:
        op = choice(["turn", choice(sorted(operations.OPERATIONS)), "dance"])
        one = wire.Running(
            id=choice(IDS),
            attempt=choice([-1, 1, 2]),
            client=choice(IDS),
            op=op,
            context=choice(NAMES),
            save=choice(NAMES),
        )
        return choice([[], [one], [one, one, wire.Running(id=choice(IDS), save="a")]])

    pools: dict[str, Callable[[], Any]] = {
        "id": lambda: choice(IDS),
        "client": lambda: choice(IDS),
        "role": lambda: choice(["client", "client", "worker", ""]),
        "versions": lambda: choice([(1,), (1, 2), (2,), ()]),
        "worker": lambda: choice(WORKERS[: choice([3, 9])]),
        "model": lambda: card() if kind is wire.Register else choice(["talk", "talk", "walk", ""]),
        "store": lambda: choice(["store", "store", "other"]),
        "slots": lambda: choice([1, 2]),
        "host": lambda: choice(["here", ""]),
        "running": running if kind is wire.Register else lambda: choice(COUNTS),
        "op": lambda: choice(
            ["turn", "turn", "ckpt.fork", "ckpt.move", choice(sorted(operations.OPERATIONS)), "dance"]
        ),
        "context": lambda: choice(NAMES[: choice([3, 9])]),
        "attempt": lambda: choice([1, 1, 2, 3]),
        "epoch": lambda: choice([0, 1, 1, 2, 3]),
        "seq": lambda: choice([0, 1, 2, 3]),
        "offset": lambda: choice([0, 1, 2, 6, choice(COUNTS)]),
        "ttl_ms": lambda: choice([1, 500, 5000]),
        "credit": lambda: choice([0, 2, 1_000_000]),
        "n": lambda: choice([0, 2, 1_000_000]),
        "args": lambda: wire.pack(args()),
        "result": lambda: wire.pack(args()),
        "result_frames": lambda: choice([0, 0, 1, 3]),
        "hot": lambda: [choice(NAMES)],
        "pins": lambda: {choice(NAMES): choice(WORKERS)},
        "error": lambda: choice([None, None, problem()]),
        "mode": lambda: choice(["keep", "drop", "close", ""]),
        "last": lambda: choice([True, False]),
        "reason": lambda: choice(NAMES),
        "agent": lambda: "fuzz",
    }
    return kind(
        **{field.name: pools.get(field.name, lambda: choice(COUNTS))() for field in msgspec.structs.fields(kind)}
    )


def peopled() -> tuple[Rig, list[Peer]]:
    """Two workers, of which one is lost, two clients and a stranger, in the middle of some work."""
    rig = Rig(BOUNDS)
    hands = [rig.hand("talk/0", slots=2), rig.hand("talk/1", slots=1)]
    callers = [rig.caller(IDS[0]), rig.caller(IDS[1])]
    for number in (1, 2, 3):
        callers[number % 2].asks(turn(number, "a", "a" if number < 3 else "b", credit=2))
    hands[0].streams(1, 1, 0, b"abc")
    hands[1].is_lost()
    return rig, [*hands, *callers, rig.peer()]


def messages(random: Random) -> Iterator[tuple[list[bytes], wire.Message, list[bytes]]]:
    """Messages as they come out of the wire: what it refuses never gets to the broker."""
    kinds = [*wire.KINDS.values(), wire.Request, wire.Final, wire.Partial, wire.Register]
    pins = [b"", b"\x81\xa1a\xa6talk/0", b"\x81\xa1a\x01", b"\xff"]
    texts = [[], [], [b"text"], [b"text", b"more", b""], [b"x" * 1000], [wire.pack(ops.Settled(True))]]
    while True:
        message = draw(random, random.choice(kinds))
        payloads = [random.choice(pins)] if isinstance(message, wire.Register) else random.choice(texts)
        try:
            frames = wire.encode(message, [bytes(payload) for payload in payloads])
            decoded, rest = wire.decode(frames)
        except wire.WireError:
            continue
        yield frames, decoded, rest


@pytest.mark.parametrize("seed", range(60))
def test_no_message_is_the_end_of_the_broker(seed: int) -> None:
    random = Random(seed)
    rig, people = peopled()
    stream = messages(random)
    for _ in range(STEPS):
        peer, luck = random.choice(people), random.random()
        if luck < 0.02:
            rig.handle(Unreachable(rig.now, peer.route))
        elif luck < 0.03:
            rig.garbage(peer.route)
        elif luck < 0.1:
            rig.tick(random.choice([0.1, 0.4, 0.4, 3.0, 40.0]))
        else:
            frames, message, payloads = next(stream)
            if peer.route not in rig.state.peers and luck < 0.9:
                peer.say(wire.Hello(random.choice(IDS), random.choice(["client", "worker"])))
            rig.receives(peer.route, message, payloads, frames)
        check(rig)
    rig.drain()
    for _ in range(110):
        rig.tick()
    assert rig.stopped


def check(rig: Rig) -> None:
    state = rig.state
    waiting = [task for task in state.tasks.values() if task.phase in ("queued", "ready") and not task.internal]
    assert (state.queued, state.queued_bytes) == (len(waiting), sum(task.bytes for task in waiting))
    assert len(state.peers) <= BOUNDS.peers
    assert state.answers.bytes <= BOUNDS.answers_bytes
    assert len(state.locks) <= sum(len(task.shared) + len(task.exclusive) for task in state.tasks.values())
    for client in state.clients.values():
        assert client.tasks <= state.tasks.keys()
    assert state.held.keys() <= state.tasks.keys()
    for model in state.models.values():
        assert all(task.phase == "ready" for task in model.ready)
        for worker in model.workers.values():
            assert worker.running == sum(task.slot for task in worker.tasks.values())
            assert worker.tasks.keys() <= state.tasks.keys()
