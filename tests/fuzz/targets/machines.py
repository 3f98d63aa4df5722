"""The state machines behind the decoders: the broker's among its peers, the client's, and a worker's streams and files.

An input is a series of messages, each in the way that `frames.join` writes it, behind two bytes that say who sends it
or what else happens.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from rig import Hand, Peer, Rig
from test_machine_fuzz import IDS, check, messages, peopled

from broker.events import Unreachable
from clients.core import Core, Send, Tell
from clients.exchange import Result, Text, Want
from fuzz import frames
from fuzz.engine import Target
from fuzz.targets.messages import ARGS, CLIENT, MESSAGES, TURN
from ssmprov import operations, ops, wire
from ssmprov.errors import SsmprovError
from workers.job import Stream
from workers.outbox import Outbox
from workers.transfer import Transfer, receive

LONGEST = 60
"""Messages of one input."""


def steps_of(data: bytes) -> list[tuple[int, int, list[bytes]]]:
    """Who, what, and the frames, for each step of an input."""
    found = []
    for step in frames.split(data)[:LONGEST]:
        who, what = (*step[:2], 0, 0)[:2]
        found.append((who, what, frames.split(step[2:])))
    return found


def mutate_steps(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Leave steps out, double them, exchange them, take some of another input, and damage the messages of a few."""
    draw = random.random
    steps = frames.split(data)
    donor = frames.split(others[int(draw() * len(others))]) or [b"\0\0"]
    for _ in range(1 + int(draw() * 4)):
        at, luck = int(draw() * len(steps)), draw()
        if not steps or luck < 0.1:
            steps.insert(at, donor[int(draw() * len(donor))])
        elif luck < 0.15:
            del steps[at]
        elif luck < 0.25:
            steps.insert(int(draw() * len(steps)), steps[at])
        elif luck < 0.3:
            steps = steps[:at] + donor[int(draw() * len(donor)) :]
        elif luck < 0.4:
            steps[at] = bytes([int(draw() * 256), int(draw() * 256)]) + steps[at][2:]
        else:
            old = frames.split(steps[at][2:])
            new = frames.mutate_message(random, old, [frames.split(donor[int(draw() * len(donor))][2:])])
            steps[at] = steps[at][:2] + frames.join(new)
    return frames.join(steps[:LONGEST])


def broker(data: bytes) -> str:
    """No peer's messages end the broker or break what it keeps; and it can still be drained."""
    rig, people = peopled()
    said: set[str] = set()
    for who, what, message in steps_of(data):
        peer = people[who % len(people)]
        if what >= 250:
            rig.handle(Unreachable(rig.now, peer.route))
        elif what >= 235:
            rig.tick((0.1, 0.4, 3.0, 40.0)[what % 4])
        else:
            _arrives(rig, peer, message, greets=what % 8 != 0)
        check(rig)
        for found in people:
            said |= {_error(message) for message, _ in found.inbox.all()}
    rig.drain()
    for _ in range(110):
        rig.tick()
    assert rig.stopped
    return " ".join(sorted(said))


def _error(message: wire.Message) -> str:
    """What kind of answer a peer was given."""
    error = getattr(message, "error", None)
    return f"{type(message).__name__}-{error.code}"[:30] if error else type(message).__name__


def _arrives(rig: Rig, peer: Peer, message: list[bytes], *, greets: bool) -> None:
    if greets and peer.route not in rig.state.peers:
        peer.say(wire.Hello(IDS[0], "worker" if isinstance(peer, Hand) else "client"))
    try:
        decoded, payloads = wire.decode(message)
    except wire.WireError:
        rig.garbage(peer.route)
    else:
        rig.receives(peer.route, decoded, payloads, message)


def broker_seeds() -> list[bytes]:
    found = [frames.join(b"\0\1" + seed for seed in _messages())]
    for number in range(30):
        random = Random(number)
        stream = messages(random)
        steps = [
            bytes([random.randrange(256), random.randrange(256)]) + frames.join(next(stream)[0]) for _ in range(30)
        ]
        found.append(frames.join(steps))
    return found


def _messages() -> list[bytes]:
    return [frames.join(wire.encode(message, payloads)) for message, payloads in MESSAGES]


KINDS = {"turn": "text", "ckpt.export": "data", "ckpt.import": "collect", "ckpt.ls": "collect"}


def client(data: bytes) -> str:
    """Whatever a broker sends: each request ends at most once, what is sent back is well formed, texts stay bounded."""
    core, now = Core(agent="fuzz"), 0.0
    actions = core.connected(now)
    for number, (op, kind) in enumerate(KINDS.items()):
        request = wire.Request(bytes([number]) * 16, op, "talk", "a", args=wire.pack(ARGS[op]))
        actions += core.open(request, [], kind, now)
    known = [TURN, CLIENT]
    for who, what, message in steps_of(data):
        now += 0.01
        if what >= 250:
            actions += core.disconnected(now) + core.connected(now)
        elif what >= 235:
            now += (0.1, 2.0, 40.0)[what % 3]
            actions += core.tick(now)
        else:
            ours = bytes([who % len(KINDS)]) * 16
            actions += core.received([_readdressed(frame, known, ours) for frame in message], now)
        for want in [a for a in actions if isinstance(a, Tell) and isinstance(a.event, Want)][:8]:
            actions += core.supply(want.id, want.event.offset, b"piece", last=False)  # type: ignore[union-attr]
    _check_client(actions)
    _check_client(actions + core.close())
    return " ".join(sorted({type(action.event).__name__ for action in actions if isinstance(action, Tell)}))


def _readdressed(frame: bytes, known: list[bytes], to: bytes) -> bytes:
    for request_id in known:
        frame = frame.replace(request_id, to)
    return frame


def _check_client(actions: list[Send | Tell]) -> None:
    ended: set[bytes] = set()
    text: dict[bytes, int] = {}
    for action in actions:
        if isinstance(action, Send):
            wire.decode(action.frames)
            continue
        assert action.id not in ended, "an event after the end"
        if isinstance(action.event, Result):
            ended.add(action.id)
        elif isinstance(action.event, Text):
            text[action.id] = text.get(action.id, 0) + len(action.event.text)
    assert all(size <= wire.MAX_TEXT for size in text.values())


def client_seeds() -> list[bytes]:
    return [frames.join(bytes([who, 1]) + seed for seed in _messages() for who in range(4))] + [
        frames.join(bytes([who, 1]) + seed for seed in _messages()) for who in range(4)
    ]


def worker(data: bytes) -> None:
    """Whatever a broker sends: streams and files go on or end with an error, and what a worker sends is well formed."""
    streams = {
        TURN: Stream(request=wire.Request(TURN, "turn"), wanted=True, credit=2, text=bytearray("wörd".encode() * 50))
    }
    sent: list[list[bytes]] = []
    outbox = Outbox(lambda message, payloads: sent.append(wire.encode(message, payloads)) is None, streams)
    transfer = Transfer(wire.Request(TURN, "ckpt.import"), 0.0, lambda *_: None)
    size, sha256 = 0, ""
    for _who, _what, message in steps_of(data):
        try:
            decoded, payloads = wire.decode(message)
        except wire.WireError:
            continue
        match decoded:
            case wire.Request():
                _asked(decoded, streams)
                transfer.grant(decoded.credit)
            case wire.Credit():
                streams[TURN].resume(decoded)
                transfer.grant(decoded.n)
            case wire.Chunk():
                transfer.chunk(decoded, payloads)
                size += sum(map(len, payloads))
                sha256 = hashlib.sha256(b"".join(payloads)).hexdigest()
            case wire.Cancel():
                transfer.abort()
            case wire.Final() if decoded.id == TURN:  # as if this worker had answered so
                answer = wire.Final(TURN, error=decoded.error, result=decoded.result)
                Outbox(lambda m, p: sent.append(wire.encode(m, p)) is None, dict(streams)).add(answer, payloads)
        outbox.flush(1)
    for each in sent:
        wire.decode(each)
    with tempfile.TemporaryDirectory(dir=_memory()) as folder:
        receive(Path(folder) / "file", transfer, size, sha256)


def _asked(request: wire.Request, streams: dict[bytes, Stream]) -> None:
    try:
        args = operations.decode_args(request)
    except SsmprovError:
        return
    if isinstance(args, ops.Turn):
        streams.setdefault(
            request.id,
            Stream(request=request, wanted=args.stream, save=args.save, credit=request.credit, attempt=request.attempt),
        )
        streams[request.id].resume(wire.Credit(request.id, request.credit, request.attempt, request.have))


def _memory() -> str | None:
    """A folder in memory, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


TARGETS = [
    Target("broker", broker, broker_seeds, (), mutate_steps, runs=150),
    Target("client", client, client_seeds, (), mutate_steps, runs=300),
    Target("worker", worker, client_seeds, (SsmprovError,), mutate_steps, runs=300),
]
