"""What all sockets of ssmprov share: options, liveness, and what a monitor says."""

from __future__ import annotations

import struct
from typing import Any

import zmq

from ssmprov import wire
from ssmprov.errors import BadRequest

SHARED = (
    (zmq.SNDHWM, wire.HIGH_WATER_MARK),
    (zmq.RCVHWM, wire.HIGH_WATER_MARK),
    (zmq.MAXMSGSIZE, wire.MAX_PAYLOAD),
    (zmq.HEARTBEAT_IVL, wire.HEARTBEAT_IVL_MS),
    (zmq.HEARTBEAT_TIMEOUT, wire.HEARTBEAT_TIMEOUT_MS),
    (zmq.LINGER, 0),
)
OF_A_ROUTER = ((zmq.ROUTER_MANDATORY, 1), (zmq.HANDSHAKE_IVL, 5000))
OF_A_DEALER = ((zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 1000), (zmq.HANDSHAKE_IVL, 2000), (zmq.IMMEDIATE, 1))

EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
"""What a DEALER's monitor is asked for."""


def prepare_router(socket: zmq.Socket[Any]) -> None:
    """A ROUTER that says when it cannot send, instead of dropping in silence."""
    for option, value in (*SHARED, *OF_A_ROUTER):
        socket.setsockopt(option, value)


def connect_dealer(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Set a DEALER's options and connect it. Raises BadRequest for an endpoint that is none."""
    for option, value in (*SHARED, *OF_A_DEALER):
        socket.setsockopt(option, value)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BadRequest(f"{endpoint!r} is no endpoint to connect to: {error}") from None


def is_connection(frames: list[bytes]) -> bool:
    """Whether a monitor's message says that there is a connection now; else there is none any more.

    A monitor's first frame is the event (16 bits) and its value (32 bits), as zmq_socket_monitor(3) lays it out.
    """
    event, _ = struct.unpack("=Hi", frames[0])
    return bool(event == zmq.EVENT_HANDSHAKE_SUCCEEDED)
