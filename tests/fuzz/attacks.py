"""What strangers and hostile peers do to a house of processes, each attack in a thread of its own until its time is up.

An attack yields how often it struck since it last said so. None of them needs to know what the house answers. They run
in a process of their own, since libzmq has been seen to abort the one that mistreats its sockets:

    python -P -m fuzz.attacks '{"doors": {...}, "attacks": [NAME, ...], "seconds": 5, "seed": 1}'

prints `NAME COUNT` for each strike.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
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

BEGINNINGS = (b"", zmtp.GREETING[:10], zmtp.GREETING[:12], zmtp.GREETING, zmtp.GREETING + zmtp.READY)
BEGINNINGS += (zmtp.CURVE, zmtp.CURVE + zmtp.CURVE_HELLO, zmtp.CURVE + zmtp.READY)
Attack = Callable[["Doors", Random, float], Iterator[int]]


@dataclass(frozen=True)
class Doors:
    """Where the house listens."""

    ipc: str
    tcp: int
    bridge: int
    idle: int = IDLE
    guarded: bool = False

    def broker(self, random: Random) -> tuple[str, int] | str:
        return ("127.0.0.1", self.tcp) if random.random() < 0.6 else self.ipc

    def endpoint(self, random: Random) -> str:
        """Where peers of the real protocol get in: without a key, only over ipc."""
        address = self.ipc if self.guarded else self.broker(random)
        return f"ipc://{address}" if isinstance(address, str) else f"tcp://127.0.0.1:{self.tcp}"


def garbage(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Bytes that are no ZMTP, or only begin as it does."""
    while time.monotonic() < until:
        begins = random.choice(BEGINNINGS)
        if random.random() < 0.3:
            begins = mutate(random, begins, [zmtp.READY])
        data = begins + random.randbytes(random.choice((0, 1, 10, 100, 1000, 100_000)))
        with contextlib.suppress(OSError), zmtp.dial(doors.broker(random)) as connection:
            zmtp.push(connection, data)
        yield 1


def odd_frames(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """A whole handshake, then frames whose flags and lengths lie."""
    while time.monotonic() < until:
        with contextlib.suppress(OSError), zmtp.shake(doors.broker(random)) as connection:
            for _ in range(random.randrange(1, 30)):
                zmtp.push(connection, zmtp.odd_frame(random))
                yield 1


def drip(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Connections that send a byte now and then, and never come to the end of their handshake or their frame."""
    whole = zmtp.GREETING + zmtp.READY + zmtp.frame(bytes(2000))
    with contextlib.ExitStack() as stack:
        slow = []
        for _ in range(30):
            with contextlib.suppress(OSError):
                slow.append(stack.enter_context(zmtp.dial(doors.broker(random))))
        at = 0
        while time.monotonic() < until:
            yield sum(zmtp.push(connection, whole[at : at + 1]) for connection in slow)
            at += 1
            time.sleep(0.05)  # slowness is what this one is about


def idle(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Thousands of connections that say nothing, held until the end."""
    with contextlib.ExitStack() as stack:
        for _ in range(doors.idle):
            if time.monotonic() >= until:
                return
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", doors.tcp), timeout=2.0))
                yield 1
        time.sleep(max(0.0, until - time.monotonic()))


def messages(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Peers of the real protocol that say HELLO as clients and workers, and then damaged messages of every kind."""
    valid = [[bytes(part) for part in wire.encode(message, payloads)] for message, payloads in MESSAGES]
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
                    yield _send(peer, sent or [b""])
                    _drain(peer)


def forgeries(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Workers that are none: of the served model, of others, with processes and epochs of their choice."""
    hosts = ("here", socket.gethostname())
    with zmq.Context() as context:
        while time.monotonic() < until:
            with _peer(context, doors.endpoint(random)) as peer:
                _say(peer, wire.Hello(random.randbytes(16), "worker"))
                name = random.choice(("talk/0", "talk/1", "other/0", "other/1", "x" * 64 + "/0"))
                card = wire.ModelCard(
                    name=name.partition("/")[0], runtime="scripted", fingerprint=random.choice(("f", "e")) * 64
                )
                pid = random.choice((0, 1, 2**22 + 7, 2**31, 2**53 - 1))
                offer = wire.Register(
                    worker=name,
                    model=card,
                    store="store",
                    slots=8,
                    pid=pid,
                    started=random.randrange(3),
                    host=random.choice(hosts),
                )
                offer.epoch = random.choice((0, 1, 2**53 - 1))
                _say(peer, offer)
                for _ in range(random.randrange(20)):
                    yield _say(peer, wire.Pulse(progress=random.randrange(5)))
                    _drain(peer)


def flood(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Bursts of requests, of peers that read no answer and are gone at once."""
    with zmq.Context() as context:
        while time.monotonic() < until:
            with _peer(context, doors.endpoint(random), room=10_000) as peer:
                _say(peer, wire.Hello(random.randbytes(16)))
                for number in range(BURST):
                    op, args = (("status", ops.Status()), ("ckpt.ls", ops.List()), ("turn", ops.Turn(max_tokens=0)))[
                        number % 3
                    ]
                    asked = wire.Request(random.randbytes(16), op, "talk", args=wire.pack(args), credit=100)
                    yield _say(peer, asked, [b"read"] if op == "turn" else [])
            time.sleep(0.25)  # one after another: what a flood without pauses costs is measured by itself


def requests(doors: Doors, random: Random, until: float) -> Iterator[int]:
    """Requests to the bridge: damaged ones, halves, bytes of all kinds."""
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
        yield 1


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


def strike(doors: Doors, names: Sequence[str], seconds: float, seed: int) -> None:
    """Run these attacks at once."""
    until = time.monotonic() + seconds

    def run(attack: Attack) -> None:
        for struck in attack(doors, Random(f"{attack.__name__} {seed}"), until):
            if struck:
                sys.stdout.write(f"{attack.__name__} {struck}\n")
            if time.monotonic() >= until:
                break

    threads = [threading.Thread(target=run, args=(attack,)) for attack in ATTACKS if attack.__name__ in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    os.nice(15)  # whether the house answers in time on a busy machine is not the question here
    order = json.loads(sys.argv[1])
    strike(Doors(**order["doors"]), order["attacks"], order["seconds"], order["seed"])
