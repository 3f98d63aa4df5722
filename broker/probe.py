"""Finds out whether everything in a configuration serves: asks the broker, as any client would."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec
import zmq

from ssmprov import ops, sockets, wire
from ssmprov.errors import MAX_MESSAGE, Problem, Unavailable, error_of
from ssmprov.keys import Credentials

TELL_MS = 500


def ask_status(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, timeout_s: float, credentials: Credentials | None = None
) -> ops.StatusResult | None:
    """The broker's status; None if it does not answer in time. Raises the error that the broker answers."""
    deadline = time.monotonic() + timeout_s
    socket = context.socket(zmq.DEALER)
    try:
        sockets.connect_dealer(socket, endpoint, credentials)
        socket.sndtimeo = max(1, int(timeout_s * 1000))
        client = wire.new_id()
        request = wire.Request(wire.new_id(), "status", ttl_ms=max(1, int(timeout_s * 1000)), args=wire.pack({}))
        socket.send_multipart(wire.encode(wire.Hello(client, agent="supervisor")))
        socket.send_multipart(wire.encode(request))
        while socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message, payloads = wire.decode(socket.recv_multipart())
            if isinstance(message, wire.Final) and message.id == request.id:
                if message.error is not None:
                    raise error_of(message.error)
                raw, _ = wire.take_result(message, payloads)
                return wire.unpack(raw, ops.StatusResult)
    except zmq.Again:  # there is no connection
        return None
    finally:
        socket.close()
    return None


def tell_not_served(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, model: str, why: str, credentials: Credentials | None = None
) -> None:
    """Tell the broker that a configured model cannot be served, so that it can tell others."""
    socket = context.socket(zmq.DEALER)
    try:
        sockets.connect_dealer(socket, endpoint, credentials)
        socket.sndtimeo = TELL_MS
        problem = Problem(Unavailable.code, why[:MAX_MESSAGE], details={"model": model})
        for message in (wire.Hello(wire.new_id(), "worker", agent="supervisor"), wire.Bye("", problem, "not_served")):
            socket.send_multipart(wire.encode(message))
    except zmq.Again:  # there is no connection
        return
    finally:
        socket.close(linger=TELL_MS)


def missing(status: ops.StatusResult, workers: Mapping[str, int]) -> list[str]:
    """Those of `workers`, a map to process ids, that are not registered and ready."""
    ready = {worker.name: worker.pid for worker in status.workers if worker.state == "ready"}
    return sorted(name for name, pid in workers.items() if ready.get(name) != pid)


class BoundPort(msgspec.Struct):
    """What a bridge writes to its ready file once it listens."""

    port: int
    host: str = "127.0.0.1"
