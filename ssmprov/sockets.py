"""What all sockets of ssmprov share: options, liveness, and the messages of monitors."""

from __future__ import annotations

import contextlib
import os
import socket as stdlib_socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

from ssmprov import wire
from ssmprov.configuration import hold_place
from ssmprov.errors import BadRequest, Refused, SsmprovError
from ssmprov.keys import BROKER_KEY_VARIABLE, Credentials, Role

UNLIMITED = 0
"""The high-water mark for received messages. With a finite one, libzmq 4.3.5 aborts the process (`Assertion failed:
!_io_error`) if a peer's messages have reached it, the peer leaves, and a heartbeat is due before enough of them were
read. So there is no mark. Requests, credit and the broker's own bounds limit what a well-behaved peer can send."""

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
"""The events that a DEALER's monitor reports."""

_NOW, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)  # plain numbers: joining enum flags would cost a Python frame

_send: Any = zmq.backend.Socket.send
_receive: Any = zmq.backend.Socket.recv

MAX_IPC_PATH = 107
"""The longest path, in bytes, that Linux allows for a socket."""

_folders: dict[tuple[int, int], int] = {}
"""Open handles of directories, by device and inode, for sockets with longer paths."""

REDIAL_S = 1.0
"""ZeroMQ gives up an endpoint that has rejected it. We try again after this time."""

PROBE_S = 1.0

_MECHANISM_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH of zmq.h


def prepare_router(socket: zmq.Socket[Any]) -> None:
    """Make a ROUTER report when it cannot send, instead of silently dropping messages."""
    for option, value in (*SHARED, *OF_A_ROUTER):
        socket.setsockopt(option, value)


def address_of(endpoint: str) -> str:
    """The endpoint as it is given to ZeroMQ.

    A socket with a long path is reached through an open handle of its directory. So it is always in that directory,
    however the path is written. The directory is made if it does not exist. Raises BadRequest if it cannot be used.
    """
    path = Path(endpoint.removeprefix("ipc://"))
    if not endpoint.startswith("ipc://") or len(os.fsencode(path)) <= MAX_IPC_PATH:
        return endpoint
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BadRequest(f"cannot use the socket {path}: {error.strerror}") from None
    found = os.fstat(handle)
    kept = _folders.setdefault((found.st_dev, found.st_ino), handle)
    if kept != handle:
        os.close(handle)
    return f"ipc:///proc/self/fd/{kept}/{path.name}"


def somebody_listens(endpoint: str) -> bool:
    """Whether a program listens at an endpoint. It need not be a broker."""
    scheme, _, rest = address_of(endpoint).partition("://")
    host, _, port = rest.rpartition(":")
    with contextlib.suppress(OSError):
        if scheme == "ipc":
            with stdlib_socket.socket(stdlib_socket.AF_UNIX) as probe:
                probe.connect(rest)
        else:
            stdlib_socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_S).close()
        return True
    return False


def connect_dealer(socket: zmq.Socket[Any], endpoint: str, credentials: Credentials | None = None) -> None:
    """Set a DEALER's options and keys and connect it.

    Raises BadRequest if the endpoint is invalid, or if its directory belongs to another user.
    """
    hold_place(endpoint)
    address = address_of(endpoint)
    for option, value in (*SHARED, *OF_A_DEALER):
        socket.setsockopt(option, value)
    if credentials:
        socket.curve_publickey = credentials.pair.public.encode()
        socket.curve_secretkey = credentials.pair.secret.encode()
        socket.curve_serverkey = credentials.broker.encode()
    try:
        socket.connect(address)
    except zmq.ZMQError as error:
        raise BadRequest(f"cannot connect to the endpoint {endpoint!r}: {error}") from None


def send(socket: zmq.Socket[Any], frames: Sequence[bytes]) -> None:
    """Like `send_multipart`, but it never waits and costs half as much. If it raises, nothing was sent."""
    for frame in frames[:-1]:
        _send(socket, frame, _MORE)
    _send(socket, frames[-1], _NOW)


def receive(socket: zmq.Socket[Any]) -> tuple[zmq.Frame, list[bytes]]:
    """The first frame of the next message, which knows its sender, and the other frames. Raises zmq.Again if none."""
    first = frame = _receive(socket, _NOW, False)
    frames = []
    while frame.more:
        frame = _receive(socket, _NOW, False)
        frames.append(frame.bytes)
    return first, frames


def has_more(socket: zmq.Socket[Any]) -> bool:
    """Whether a message has arrived. Asking is cheaper than catching an exception."""
    return bool(int(socket.getsockopt(_EVENTS)) & _READABLE)


def redial(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Connect again to an endpoint that has rejected this socket."""
    address = address_of(endpoint)
    with contextlib.suppress(zmq.ZMQError):  # it was already disconnected
        socket.disconnect(address)
    socket.connect(address)


def is_connection(frames: list[bytes]) -> bool:
    """Whether a monitor's message says that the connection is up. Otherwise it is down."""
    return event_of(frames)[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED


def refusal(frames: list[bytes], endpoint: str, credentials: Credentials | None) -> SsmprovError | None:
    """Why a broker rejected us, if a monitor's message says so."""
    event, value = event_of(frames)
    if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and credentials:
        name, public = credentials.name, credentials.pair.public
        role = Role.WORKER if name == Role.WORKER else Role.GENERATE
        return Refused(
            f"the broker at {endpoint} does not accept this key: on its machine, run `ssmprov keys allow {name} "
            f"'{public}' --role {role}`"
        )
    if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value == _MECHANISM_MISMATCH:
        if credentials:
            return Refused(
                f"the broker at {endpoint} does not use keys: restart it if its keys are new, or unset "
                f"{BROKER_KEY_VARIABLE}"
            )
        return Refused(
            f"the broker at {endpoint} requires keys: set {BROKER_KEY_VARIABLE} to its public key (run `ssmprov keys "
            "ls` there to see it)"
        )
    return None


def suspicion(frames: list[bytes], credentials: Credentials | None) -> str:
    """What may be wrong if a handshake ended without a reason. The broker has another key, or it is shutting down."""
    if credentials and event_of(frames)[0] == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        return f"the handshake failed: check that {BROKER_KEY_VARIABLE} is the broker's public key"
    return ""


def event_of(frames: list[bytes]) -> tuple[int, int]:
    """The event (16 bits) and its value (32 bits) from a monitor's first frame; see zmq_socket_monitor(3)."""
    event, value = struct.unpack("=HI", frames[0])
    return event, value
