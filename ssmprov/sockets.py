"""What all sockets of ssmprov share: options, liveness, and what a monitor says."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from typing import Any

import zmq

from ssmprov import wire
from ssmprov.configuration import hold_place
from ssmprov.errors import BadRequest, Refused, SsmprovError
from ssmprov.keys import BROKER_KEY_VARIABLE, Credentials, Role

UNLIMITED = 0
"""Of received messages. libzmq 4.3.5 aborts the process (`Assertion failed: !_io_error`) where a peer's messages have
reached that mark, the peer goes, and a heartbeat comes due before enough of them were read. So there is no mark:
requests, credit and the broker's own bounds limit what a peer that keeps to the protocol has under way."""

SHARED = (
    (zmq.SNDHWM, wire.HIGH_WATER_MARK),
    (zmq.RCVHWM, UNLIMITED),
    (zmq.MAXMSGSIZE, wire.MAX_PAYLOAD),
    (zmq.HEARTBEAT_IVL, wire.HEARTBEAT_IVL_MS),
    (zmq.HEARTBEAT_TIMEOUT, wire.HEARTBEAT_TIMEOUT_MS),
    (zmq.LINGER, 0),
)
OF_A_ROUTER = ((zmq.ROUTER_MANDATORY, 1), (zmq.HANDSHAKE_IVL, 5000))
OF_A_DEALER = ((zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 1000), (zmq.HANDSHAKE_IVL, 2000), (zmq.IMMEDIATE, 1))

EVENTS = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
)
"""What a DEALER's monitor is asked for."""

_NOW, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: to join flags that are enums costs a frame

_send: Any = zmq.backend.Socket.send
_receive: Any = zmq.backend.Socket.recv

REDIAL_S = 1.0
"""ZeroMQ gives up an endpoint that has refused it; after so long it is tried again."""

_MECHANISM_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH of zmq.h


def prepare_router(socket: zmq.Socket[Any]) -> None:
    """A ROUTER that says when it cannot send, instead of dropping in silence."""
    for option, value in (*SHARED, *OF_A_ROUTER):
        socket.setsockopt(option, value)


def connect_dealer(socket: zmq.Socket[Any], endpoint: str, credentials: Credentials | None = None) -> None:
    """Set a DEALER's options and keys and connect it.

    Raises BadRequest for an endpoint that is none, or whose directory is another user's.
    """
    hold_place(endpoint)
    for option, value in (*SHARED, *OF_A_DEALER):
        socket.setsockopt(option, value)
    if credentials:
        socket.curve_publickey = credentials.pair.public.encode()
        socket.curve_secretkey = credentials.pair.secret.encode()
        socket.curve_serverkey = credentials.broker.encode()
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise BadRequest(f"{endpoint!r} is no endpoint to connect to: {error}") from None


def send(socket: zmq.Socket[Any], frames: Sequence[bytes]) -> None:
    """`send_multipart` that never waits, at half its cost. Raises as that does, with nothing sent."""
    for frame in frames[:-1]:
        _send(socket, frame, _MORE)
    _send(socket, frames[-1], _NOW)


def receive(socket: zmq.Socket[Any]) -> tuple[zmq.Frame, list[bytes]]:
    """The first frame of the next message, which knows who sent it, and the others. Raises zmq.Again for none."""
    first = frame = _receive(socket, _NOW, False)
    frames = []
    while frame.more:
        frame = _receive(socket, _NOW, False)
        frames.append(frame.bytes)
    return first, frames


def has_more(socket: zmq.Socket[Any]) -> bool:
    """Whether a message has come: cheaper than to be told by an exception that none has."""
    return bool(int(socket.getsockopt(_EVENTS)) & _READABLE)


def redial(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Try an endpoint again that has refused this socket."""
    with contextlib.suppress(zmq.ZMQError):  # it was given up altogether
        socket.disconnect(endpoint)
    socket.connect(endpoint)


def is_connection(frames: list[bytes]) -> bool:
    """Whether a monitor's message says that there is a connection now; else there is none any more."""
    return event_of(frames)[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED


def refusal(frames: list[bytes], endpoint: str, credentials: Credentials | None) -> SsmprovError | None:
    """Why a broker would not speak with us, where a monitor's message says so."""
    event, value = event_of(frames)
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and credentials:
        name, public = credentials.name, credentials.pair.public
        role = Role.WORKER if name == Role.WORKER else Role.GENERATE
        return Refused(
            f"the broker at {endpoint} does not let this key in: on its machine, run `ssmprov keys allow {name} "
            f"'{public}' --role {role}`"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH:
        if credentials:
            return Refused(
                f"the broker at {endpoint} speaks without keys: start it again if its keys are new, else unset "
                f"{BROKER_KEY_VARIABLE}"
            )
        return Refused(
            f"the broker at {endpoint} asks for keys: set {BROKER_KEY_VARIABLE} to its public key (`ssmprov keys ls` "
            "there shows it)"
        )
    return None


def suspicion(frames: list[bytes], credentials: Credentials | None) -> str:
    """What may be wrong where a handshake ended without a word: a broker with another key hangs up so, or dies so."""
    if credentials and event_of(frames)[0] == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return f"the handshake failed: is {BROKER_KEY_VARIABLE} the broker's public key?"
    return ""


def event_of(frames: list[bytes]) -> tuple[int, int]:
    """A monitor's first frame is the event (16 bits) and its value (32 bits), as zmq_socket_monitor(3) lays it out."""
    event, value = struct.unpack("=HI", frames[0])
    return event, value
