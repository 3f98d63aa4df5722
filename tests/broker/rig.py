"""A broker without sockets and clocks: peers speak to it, time passes when a test says so, and all it does is kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from broker.events import Drain, Due, Event, Kill, Log, Look, Received, Refuse, Send, Stop, Tick, Unreachable
from broker.machine import Broker
from broker.state import Bounds
from ssmprov import ops, wire
from ssmprov.keys import LOCAL, User

IDENTITY = b"B" * 16
TICK_S = 0.1
CARD = wire.ModelCard(name="talk", runtime="scripted", fingerprint="f" * 64)

M = TypeVar("M", bound=wire.Message)


def id_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def request(number: int, op: str = "turn", args: Any = None, /, **fields: Any) -> wire.Request:
    """A request under the id `number`; its model is `talk` unless told otherwise."""
    fields.setdefault("model", "talk")
    return wire.Request(id_of(number), op, args=wire.pack(args if args is not None else {}), **fields)


def turn(number: int, context: str = "", save: str = "", /, **fields: Any) -> wire.Request:
    return request(number, "turn", ops.Turn(save=save, stream=True), context=context, **fields)


@dataclass
class Inbox:
    """What one peer was sent and has not taken out yet."""

    messages: deque[tuple[wire.Message, list[bytes]]] = field(default_factory=deque)

    def add(self, frames: Sequence[bytes]) -> None:
        self.messages.append(wire.decode(frames))

    def all(self) -> list[tuple[wire.Message, list[bytes]]]:
        taken = list(self.messages)
        self.messages.clear()
        return taken

    def each(self, kind: type[M]) -> Iterator[M]:
        return (message for message, _ in self.messages if isinstance(message, kind))


class Peer:
    """One connection to the broker."""

    def __init__(self, rig: Rig, route: bytes, user: User = LOCAL) -> None:
        self.rig = rig
        self.route = route
        self.user = user
        self.inbox = rig.inboxes[route] = Inbox()

    def say(self, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        frames = wire.encode(message, payloads)
        message, payloads = wire.decode(frames)
        self.rig.receives(self.route, message, payloads, frames, self.user)

    def hears(self, kind: type[M]) -> tuple[M, list[bytes]]:
        """The next message of a kind, past whatever comes before it."""
        while self.inbox.messages:
            message, payloads = self.inbox.messages.popleft()
            if isinstance(message, kind):
                return message, payloads
        raise AssertionError(f"{self.route!r} heard no {kind.__name__}")

    def heard(self, kind: type[M]) -> list[M]:
        """All messages of a kind among what came; everything is taken out."""
        found = list(self.inbox.each(kind))
        self.inbox.messages.clear()
        return found

    def breaks(self) -> None:
        """The connection is gone, and the broker's next send to it finds that out."""
        self.rig.broken.add(self.route)

    def is_lost(self) -> None:
        """The connection is gone, and the broker has found that out."""
        self.breaks()
        self.rig.handle(Unreachable(self.rig.now, self.route))


class Caller(Peer):
    """A client."""

    def __init__(self, rig: Rig, route: bytes, client: bytes, user: User = LOCAL) -> None:
        super().__init__(rig, route, user)
        self.id = client
        self.say(wire.Hello(client))
        self.hears(wire.Hello)

    def again(self) -> Caller:
        """The same client on another connection."""
        return self.rig.caller(self.id)

    def asks(self, message: wire.Request, prompt: bytes = b"") -> None:
        self.say(message, [prompt] if prompt else [])

    def answer(self, number: int) -> tuple[wire.Final, bytes]:
        """The terminal answer to a request, and its text."""
        while True:
            final, payloads = self.hears(wire.Final)
            if final.id == id_of(number):
                return final, b"".join(payloads[final.result_frames :])

    def error(self, number: int) -> str:
        final, _ = self.answer(number)
        assert final.error is not None, f"{number} was answered without an error"
        return f"{final.error.code}: {final.error.message}"


class Hand(Peer):
    """A worker."""

    def __init__(self, rig: Rig, route: bytes, name: str, user: User = LOCAL, **fields: Any) -> None:
        super().__init__(rig, route, user)
        self.name = name
        self.pulses = True
        self.progress = 0
        pins: dict[str, str] = fields.pop("pins", {})
        running: list[wire.Running] = fields.pop("running", [])
        fields.setdefault("model", CARD)
        fields.setdefault("pid", 1000 + len(rig.inboxes))
        fields.setdefault("host", "here")
        fields.setdefault("store", "store")
        fields.setdefault("started", 1)
        fields.setdefault("slots", 8)
        self.offer = wire.Register(worker=name, running=running, **fields)
        self.say(wire.Hello(id_of(10_000 + len(rig.inboxes)), "worker"))
        self.hears(wire.Hello)
        self.say(self.offer, [bytes(wire.pack(pins))])
        leases = [entry for entry in self.inbox.messages if isinstance(entry[0], wire.Register)]
        self.epoch = 0
        for entry in leases:
            self.epoch = entry[0].epoch
            self.inbox.messages.remove(entry)

    def again(self, *running: wire.Running, **fields: Any) -> Hand:
        """The same process on another connection."""
        offer = self.offer
        same = {key: getattr(offer, key) for key in ("model", "pid", "host", "store", "started", "slots", "stall_ms")}
        return self.rig.hand(self.name, **(same | {"epoch": self.epoch, "running": list(running)} | fields))

    def pulse(self, *, progress: int = 1) -> None:
        self.progress += progress
        self.say(wire.Pulse(progress=self.progress))

    def gets(self, number: int) -> wire.Request:
        message, _ = self.hears(wire.Request)
        assert message.id == id_of(number), f"{self.name} got {message.op} {message.id.hex()}, not {number}"
        return message

    def streams(self, number: int, seq: int, offset: int, text: bytes, *, attempt: int = 1, epoch: int = 0) -> None:
        self.say(wire.Partial(id_of(number), seq, attempt, epoch or self.epoch, offset), [text])

    def answers(
        self,
        number: int | bytes,
        text: bytes = b"",
        *,
        result: Any = None,
        offset: int = 0,
        attempt: int = 1,
        epoch: int = 0,
        **fields: Any,
    ) -> None:
        """Send a FINAL with the text from byte `offset`."""
        request_id = id_of(number) if isinstance(number, int) else number
        final = wire.Final(request_id, attempt, epoch or self.epoch, offset=offset, **fields)
        self.say(*wire.final(final, result, text))


class Rig:
    """The broker and its surroundings."""

    def __init__(
        self, bounds: Bounds | None = None, *, now: float = 1000.0, default: str = "", debug: bool = False
    ) -> None:
        self.now = now
        self.broker = Broker(IDENTITY, now, bounds, pid=1, default=default, debug=debug)
        self.inboxes: dict[bytes, Inbox] = {}
        self.broken: set[bytes] = set()
        self.hands: list[Hand] = []
        self.killed: list[Kill] = []
        self.looked: list[Look] = []
        self.log: list[str] = []
        self.stopped = False
        self._routes = 0

    @property
    def state(self) -> Any:
        return self.broker.state

    def handle(self, event: Event) -> None:
        """One event, and those that follow from what the broker does."""
        events = deque([event])
        while events:
            for action in self.broker.handle(events.popleft()):
                match action:
                    case Send():
                        if action.route in self.broken:
                            events.append(Unreachable(self.now, action.route))
                        else:
                            self.inboxes[action.route].add(action.frames)
                    case Kill():
                        self.killed.append(action)
                    case Look():
                        self.looked.append(action)
                    case Log():
                        self.log.append(action.text)
                    case Stop():
                        self.stopped = True

    def receives(
        self,
        route: bytes,
        message: wire.Message,
        payloads: list[bytes],
        frames: Sequence[bytes],
        user: User = LOCAL,
    ) -> None:
        """A decoded message comes from a route."""
        event = Received(now=self.now, route=route, message=message, payloads=payloads, frames=frames, user=user)
        self.handle(event)

    def _route(self) -> bytes:
        self._routes += 1
        return b"route%d" % self._routes

    def peer(self, user: User = LOCAL) -> Peer:
        return Peer(self, self._route(), user)

    def caller(self, client: bytes | None = None, user: User = LOCAL) -> Caller:
        route = self._route()
        return Caller(self, route, client or route.ljust(16, b"."), user)

    def hand(self, name: str = "talk/0", **fields: Any) -> Hand:
        found = Hand(self, self._route(), name, **fields)
        self.hands = [hand for hand in self.hands if hand.name != name or not found.epoch]
        if found.epoch:
            self.hands.append(found)
        return found

    def garbage(self, route: bytes) -> None:
        self.handle(Refuse(self.now, route, wire.WireError("no message")))

    def tick(self, seconds: float = TICK_S) -> None:
        self.now += seconds
        if self.now >= self.broker.due_at:
            self.handle(Due(self.now))
        self.handle(Tick(self.now))

    def wait(self, seconds: float, *, progress: int = 1) -> None:
        """Let time pass in steps of a tick, while the workers pulse."""
        for _ in range(round(seconds / TICK_S)):
            for hand in self.hands:
                if hand.pulses and hand.route not in self.broken:
                    hand.pulse(progress=progress)
            self.tick()

    def drain(self) -> None:
        self.handle(Drain(self.now))

    def assert_idle(self) -> None:
        """Nothing is left over of any work."""
        state = self.state
        assert not state.tasks
        assert not state.limbo
        assert not len(state.locks)
        assert (state.queued, state.queued_bytes) == (0, 0)
        for model in state.models.values():
            assert not model.ready
            assert not any(worker.tasks for worker in model.workers.values())
