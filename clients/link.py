"""What both faces do with the socket: its options and endpoint, its monitor, and where a core's actions go."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

import zmq
from zmq.utils.monitor import parse_monitor_message

from clients.core import Action, Send
from clients.exchange import Event, Result
from ssmprov import configuration, wire
from ssmprov.errors import BadRequest, SsmprovError, problem_of

TICK_S = 0.1
LINGER_MS = 250
"""How long closing waits for the farewell to leave."""

EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED

OPTIONS = (
    (zmq.LINGER, 0),
    (zmq.RCVHWM, wire.HIGH_WATER_MARK),
    (zmq.SNDHWM, wire.HIGH_WATER_MARK),
    (zmq.HEARTBEAT_IVL, wire.HEARTBEAT_IVL_MS),
    (zmq.HEARTBEAT_TIMEOUT, wire.HEARTBEAT_TIMEOUT_MS),
    (zmq.RECONNECT_IVL, 50),
    (zmq.RECONNECT_IVL_MAX, 1000),
    (zmq.HANDSHAKE_IVL, 2000),
    (zmq.MAXMSGSIZE, wire.MAX_PAYLOAD),
    (zmq.IMMEDIATE, 1),
)


def choose_endpoint(endpoint: str | None, home: Path | None) -> str:
    """The endpoint given, else `$SSMPROV_BROKER`, else the first one of the configuration.

    Raises BadRequest or NotFound for a configuration that cannot be read.
    """
    chosen = endpoint or os.environ.get("SSMPROV_BROKER")
    if chosen:
        return configuration.endpoint_of(chosen, home or configuration.home_of())
    named = os.environ.get("SSMPROV_CONFIG") if home is None else None
    return configuration.load(Path(named) if named else None, home).endpoints()[0]


def prepare(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Set a DEALER's options and connect it. Raises BadRequest for an endpoint that is none."""
    for option, value in OPTIONS:
        socket.setsockopt(option, value)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BadRequest(f"{endpoint!r} is no endpoint to connect to: {error}") from None


def is_connection(frames: list[bytes]) -> bool:
    """Whether a monitor's message says that there is a connection now; else there is none any more."""
    return bool(parse_monitor_message(frames)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED)


B = TypeVar("B")


class Desk(Generic[B]):
    """Where actions go: frames into the outbox, events into the box of the request that they belong to."""

    def __init__(self, put: Callable[[B, Event], object]) -> None:
        self.outbox: deque[list[bytes]] = deque()
        self.boxes: dict[bytes, B] = {}
        self._put = put

    def file(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.outbox.append(action.frames)
                continue
            if (box := self.boxes.get(action.id)) is not None:
                self._put(box, action.event)
            if isinstance(action.event, Result):
                self.boxes.pop(action.id, None)

    def drop(self, request_id: bytes, box: B) -> bool:
        """Take a box away if it is still the request's; whether it was."""
        if self.boxes.get(request_id) is not box:
            return False
        del self.boxes[request_id]
        return True

    def fail(self, fault: Exception) -> SsmprovError:
        """End every request with a fault of ours, so that nobody waits for ever; the error that says so."""
        problem = problem_of(fault)
        error = SsmprovError(problem.message)
        error.remote_traceback = problem.traceback
        for box in self.boxes.values():
            self._put(box, Result(error=error))
        self.boxes.clear()
        return error
