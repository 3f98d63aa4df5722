"""Sockets that speak the wire by hand, one message at a time, as a test wants it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import zmq
from cluster import PATIENCE_S

from ssmprov import ops, wire

M = TypeVar("M", bound=wire.Message)


class Peer:
    """A socket that speaks the wire by hand."""

    def __init__(self, endpoint: str, role: str = "client", *, room: int = 1000, hello: bool = True) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvhwm = room
        self.socket.connect(endpoint)
        self.id = wire.new_id()
        if hello:
            self.say(wire.Hello(self.id, role))
            self.hears(wire.Hello)

    def say(self, message: wire.Message, payloads: Sequence[bytes] = ()) -> None:
        self.socket.send_multipart(wire.encode(message, payloads))

    def hears(self, kind: type[M], patience_s: float = PATIENCE_S) -> M:
        """The next message of a kind; pulses are answered, as a client does."""
        until = time.monotonic() + patience_s
        while self.socket.poll(max(0, int(1000 * (until - time.monotonic())))):
            message, _ = wire.decode(self.socket.recv_multipart())
            if isinstance(message, kind):
                return message
            if isinstance(message, wire.Pulse):
                self.say(wire.Pulse())
        raise AssertionError(f"no {kind.__name__} came within {patience_s:g} s")

    def asks(self, op: str = "turn", args: object = None, **fields: str) -> bytes:
        request = wire.Request(wire.new_id(), op, args=wire.pack(args or {}), **fields)
        self.say(request)
        return request.id

    def status(self) -> ops.StatusResult:
        request_id = self.asks("status")
        while (final := self.hears(wire.Final)).id != request_id:
            pass
        return wire.unpack(final.result, ops.StatusResult)

    def status_when(self, holds: Callable[[ops.StatusResult], bool]) -> ops.StatusResult:
        """Ask again and again until something holds."""
        until = time.monotonic() + PATIENCE_S
        while not holds(found := self.status()):
            assert time.monotonic() < until, f"it never held: {found}"
        return found

    def is_alone(self) -> None:
        """Wait until the broker has no other client."""
        self.status_when(lambda status: status.broker.clients == 1)

    def leases(self, name: str, *, pid: int = 1, started: int = 0, host: str = "elsewhere") -> wire.Register:
        """Register as a worker."""
        card = wire.ModelCard(name=name.partition("/")[0], runtime="by hand", fingerprint="f" * 64)
        self.say(wire.Register(worker=name, model=card, store="store", slots=4, pid=pid, started=started, host=host))
        return self.hears(wire.Register)

    def close(self) -> None:
        self.socket.close()
        self.context.term()


class Peers:
    """Makes peers of one endpoint, and closes them."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, endpoint: str, role: str = "client", *, room: int = 1000, hello: bool = True) -> Peer:
        peer = Peer(endpoint, role, room=room, hello=hello)
        self._stack.callback(peer.close)
        return peer
