"""What strangers and hostile peers do to a house of processes, each attack in a thread of its own until its time is up.

An attack returns how often it struck. None of them needs to know what the house answers.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import zmq

from fuzz import frames, zmtp
from fuzz.mutate import mutate
from fuzz.targets.messages import MESSAGES
from fuzz.targets.texts import BRIDGE_SEEDS
from ssmprov import ops, wire

IDLE = 2000
BURST = 3000
"""More than libzmq would hold for a peer by itself."""

Attack = Callable[["Doors", Random, float], int]


@dataclass(frozen=True)
class Doors:
    """Where the house listens."""

    ipc: str
    tcp: int
    bridge: int
    idle: int = IDLE

    def broker(self, random: Random) -> tuple[str, int] | str:
        return ("127.0.0.1", self.tcp) if random.random() < 0.6 else self.ipc

    def endpoint(self, random: Random) -> str:
        address = self.broker(random)
        return f"ipc://{address}" if isinstance(address, str) else f"tcp://127.0.0.1:{self.tcp}"


def garbage(doors: Doors, random: Random, until: float) -> int:
    """Bytes that are no ZMTP, or only begin as it does."""
    count = 0
    while time.monotonic() < until:
        begins = random.choice((b"", zmtp.GREETING[:10], zmtp.GREETING[:12], zmtp.GREETING, zmtp.GREETING + zmtp.READY))
        if random.random() < 0.3:
            begins = mutate(random, begins, [zmtp.READY])
        data = begins + random.randbytes(random.choice((0, 1, 10, 100, 1000, 100_000)))
        with contextlib.suppress(OSError), zmtp.dial(doors.broker(random)) as connection:
            zmtp.push(connection, data)
        count += 1
    return count


def odd_frames(doors: Doors, random: Random, until: float) -> int:
    """A whole handshake, then frames whose flags and lengths lie."""
    count = 0
    while time.monotonic() < until:
        with contextlib.suppress(OSError), zmtp.shake(doors.broker(random)) as connection:
            for _ in range(random.randrange(1, 30)):
                zmtp.push(connection, zmtp.odd_frame(random))
                count += 1
    return count


def drip(doors: Doors, random: Random, until: float) -> int:
    """Connections that send a byte now and then, and never come to the end of their handshake or their frame."""
    count = 0
    whole = zmtp.GREETING + zmtp.READY + zmtp.frame(bytes(2000))
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(30):
            with contextlib.suppress(OSError):
                slow.append(stack.enter_context(zmtp.dial(doors.broker(random))))
        at = 0
        while time.monotonic() < until:
            for connection in slow:
                count += zmtp.push(connection, whole[at : at + 1])
            at += 1
            time.sleep(0.05)  # slowness is what this one is about
    return count


def idle(doors: Doors, random: Random, until: float) -> int:
    """Thousands of connections that say nothing, held until the end."""
    with contextlib.ExitStack() as stack:
        count = 0
        while count < doors.idle and time.monotonic() < until:
            try:
                stack.enter_context(socket.create_connection(("127.0.0.1", doors.tcp), timeout=2.0))
            except OSError:
                break
            count += 1
        time.sleep(max(0.0, until - time.monotonic()))
    return count


def messages(doors: Doors, random: Random, until: float) -> int:
    """Peers of the real protocol that say HELLO as clients and workers, and then damaged messages of every kind."""
    valid = [[bytes(part) for part in wire.encode(message, payloads)] for message, payloads in MESSAGES]
    count = 0
    with zmq.Context() as context:
        while time.monotonic() < until:
            with _peer(context, doors.endpoint(random)) as peer:
                role = random.choice(("client", "worker", "client", ""))
                if random.random() < 0.9:
                    _say(peer, wire.Hello(random.randbytes(16), role))
                for _ in range(random.randrange(1, 300)):
                    sent = random.choice(valid)
                    if random.random() < 0.8:
                        sent = frames.mutate_message(random, sent, valid)
                    sent = [part.replace(b"t" * 16, random.randbytes(16)) for part in sent]
                    count += _send(peer, sent or [b""])
                    _drain(peer)
    return count


def forgeries(doors: Doors, random: Random, until: float) -> int:
    """Workers that are none: of the served model, of others, with processes and epochs of their choice."""
    count = 0
    hosts = ("here", socket.gethostname())
    with zmq.Context() as context:
        while time.monotonic() < until:
            with _peer(context, doors.endpoint(random)) as peer:
                _say(peer, wire.Hello(random.randbytes(16), "worker"))
                name = random.choice(("talk/0", "talk/1", "other/0", "other/1", "x" * 64 + "/0"))
                card = wire.ModelCard(name.partition("/")[0], "scripted", random.choice(("f", "e")) * 64)
                pid = random.choice((0, 1, 2**22 + 7, 2**31, 2**53 - 1))
                offer = wire.Register(name, card, "store", 8, pid, random.randrange(3), random.choice(hosts))
                offer.epoch = random.choice((0, 1, 2**53 - 1))
                _say(peer, offer)
                for _ in range(random.randrange(20)):
                    count += _say(peer, wire.Pulse(random.randrange(5)))
                    _drain(peer)
    return count


def flood(doors: Doors, random: Random, until: float) -> int:
    """Bursts of requests, of peers that read no answer and are gone at once."""
    count = 0
    with zmq.Context() as context:
        while time.monotonic() < until:
            with _peer(context, doors.endpoint(random), room=10_000) as peer:
                _say(peer, wire.Hello(random.randbytes(16)))
                for number in range(BURST):
                    op, args = (("status", ops.Status()), ("ckpt.ls", ops.List()), ("turn", ops.Turn(max_tokens=0)))[
                        number % 3
                    ]
                    asked = wire.Request(random.randbytes(16), op, "talk", args=wire.pack(args), credit=100)
                    count += _say(peer, asked, [b"read"] if op == "turn" else [])
            time.sleep(0.25)  # one after another: what a flood without pauses costs is measured by itself
    return count


def requests(doors: Doors, random: Random, until: float) -> int:
    """Requests to the bridge: damaged ones, halves, bytes of all kinds."""
    count = 0
    while time.monotonic() < until:
        data = random.choice(BRIDGE_SEEDS) if random.random() < 0.8 else random.randbytes(random.randrange(3000))
        data = mutate(random, data, BRIDGE_SEEDS)
        if random.random() < 0.7:
            data = data.rstrip(b"\0") + b"\0"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", doors.bridge), timeout=2.0) as peer:
            zmtp.push(peer, data)
            if random.random() < 0.5:
                peer.settimeout(1.0)
                while peer.recv(65536):
                    pass
        count += 1
    return count


ATTACKS: tuple[Attack, ...] = (garbage, odd_frames, drip, idle, messages, forgeries, flood, requests)


@contextlib.contextmanager
def _peer(context: zmq.Context, endpoint: str, room: int = 1000):  # type: ignore[no-untyped-def]
    peer = context.socket(zmq.DEALER)
    peer.linger = 0
    peer.rcvhwm = peer.sndhwm = room
    peer.sndtimeo = 200
    peer.connect(endpoint)
    try:
        yield peer
    finally:
        peer.close()


def _say(peer: zmq.Socket, message: wire.Message, payloads: list[bytes] | None = None) -> int:
    return _send(peer, wire.encode(message, payloads or []))


def _send(peer: zmq.Socket, parts: list[bytes]) -> int:
    try:
        peer.send_multipart(parts)
    except zmq.Again:
        return 0
    return 1


def _drain(peer: zmq.Socket) -> None:
    with contextlib.suppress(zmq.Again):
        while True:
            peer.recv_multipart(zmq.NOBLOCK)
