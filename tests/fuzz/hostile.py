"""A broker that is none: it leases a real worker its name, sends it damaged messages, and sees if it still works."""

from __future__ import annotations

import time
from pathlib import Path
from random import Random

import zmq
from cluster import PATIENCE_S, Cluster, scripted_toml

from fuzz import frames
from fuzz.targets.messages import MESSAGES, TURN
from ssmprov import ops, sockets, wire
from ssmprov.configuration import private_directory

ROUND = 200
"""Messages between two honest requests, which must be answered."""

ASKED = "hello [ECHO]:"
ANSWER = b" as you say.\n\n~~~(end)~~~\n\n"


class HostileBroker:
    """A ROUTER where a worker expects its broker."""

    def __init__(self, home: Path) -> None:
        self.cluster = Cluster(home, scripted_toml(home))
        endpoint = self.cluster.endpoint
        private_directory(Path(endpoint.removeprefix("ipc://")).parent)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        sockets.prepare_router(self._router)
        self._router.bind(endpoint)
        self.process = self.cluster.worker("talk", 0, wait=False)
        self._route = b""
        offer, _ = self._hears(wire.Register)
        self._lease = wire.Register(worker="talk/0", model=offer.model, store=offer.store, slots=offer.slots, epoch=1)
        self._say(self._lease)
        self.process.expect(" serves ")
        self.sent = 0

    def close(self) -> None:
        self.cluster.close()
        self._router.close(linger=0)
        self._context.term()

    def barrage(self, random: Random) -> None:
        """Damaged messages of every kind but a farewell, which a worker obeys."""
        valid = [[bytes(part) for part in wire.encode(message, payloads)] for message, payloads in MESSAGES]
        for _ in range(ROUND):
            parts = random.choice(valid)
            if random.random() < 0.9:
                parts = frames.mutate_message(random, parts, valid)
            if random.random() < 0.7:
                parts = [part.replace(TURN, random.randbytes(16)) for part in parts]
            if b"SSP1BYE" not in parts[:1] and not any(len(part) > wire.MAX_PAYLOAD for part in parts):
                self._send(parts)
                self.sent += 1

    def still_works(self) -> bool:
        """Whether a turn is answered as it should be."""
        self._say(self._lease)
        asked = wire.Request(wire.new_id(), "turn", "talk", args=wire.pack(ops.Turn(settings="greedy")))
        self._say(asked, [ASKED.encode()])
        while True:
            final, payloads = self._hears(wire.Final)
            if final.id == asked.id:
                return final.error is None and wire.take_result(final, payloads)[1] == ANSWER

    def _hears(self, kind: type[wire.Message]) -> tuple[wire.Message, list[bytes]]:
        until = time.monotonic() + PATIENCE_S
        while self._router.poll(max(0, int(1000 * (until - time.monotonic())))):
            self._route, *parts = self._router.recv_multipart()
            message, payloads = wire.decode(parts)
            if isinstance(message, wire.Hello):
                self._say(wire.Hello(b"b" * 16, "broker"))
            if isinstance(message, kind):
                return message, payloads
        raise AssertionError(f"no {kind.__name__} came; the worker said {self.process.lines[-5:]}")

    def _say(self, message: wire.Message, payloads: list[bytes] | None = None) -> None:
        self._send(wire.encode(message, payloads or []))

    def _send(self, parts: list[bytes]) -> None:
        """What the worker sends meanwhile is read, so that neither waits for the other."""
        while True:
            try:
                self._router.send_multipart([self._route, *(parts or [b""])], zmq.NOBLOCK)
                return
            except zmq.Again:
                if self._router.poll(1000):
                    self._router.recv_multipart()


def torment(home: Path, seconds: float, seed: int) -> dict[str, object]:
    """Send a worker damaged messages for so long; the figures, with `faults` where it did not stand that."""
    broker = HostileBroker(home)
    random = Random(seed)
    faults: list[str] = []
    until = time.monotonic() + seconds
    try:
        while time.monotonic() < until and not faults:
            broker.barrage(random)
            if not broker.still_works():
                faults.append("a turn was answered wrongly")
    except (AssertionError, zmq.ZMQError) as error:
        faults.append(f"{error}; the worker said {broker.process.lines[-5:]}")
    finally:
        broker.close()
    return {"messages": broker.sent, "faults": faults}
