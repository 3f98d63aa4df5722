"""ZMTP 3 by hand (RFC 23): what a socket library would never send, and what it sends, byte by byte."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from random import Random

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
"""Signature, version 3.1, the mechanism without keys, no server."""

CURVE = GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32)
"""The greeting of a client with keys."""

CURVE_HELLO = b"\x04\xc8\x05HELLO\x01\x00" + bytes(192)
"""And its first command, whose box is none."""

_READY = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
READY = b"\x04" + bytes([len(_READY)]) + _READY
MORE, LONG, COMMAND = 1, 2, 4


def frame(data: bytes, *, more: bool = False) -> bytes:
    flags = MORE if more else 0
    if len(data) > 255:
        return bytes([flags | LONG]) + len(data).to_bytes(8, "big") + data
    return bytes([flags, len(data)]) + data


def message(frames: Sequence[bytes]) -> bytes:
    return b"".join(frame(part, more=at < len(frames) - 1) for at, part in enumerate(frames))


def dial(address: tuple[str, int] | str) -> socket.socket:
    """A raw connection to a TCP or ipc address."""
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(2.0)
        connection.connect(address)
        return connection
    return socket.create_connection(address, timeout=2.0)


def shake(address: tuple[str, int] | str) -> socket.socket:
    """A connection past its handshake."""
    connection = dial(address)
    got = b""
    try:
        connection.sendall(GREETING + READY)
        while len(got) < len(GREETING) + len(READY) - 2:
            part = connection.recv(4096)
            if not part:
                raise ConnectionError("the handshake was refused")
            got += part
    except OSError:
        connection.close()
        raise
    return connection


def push(connection: socket.socket, data: bytes) -> int:
    """Send without waiting for answers, which are thrown away; the bytes that went out."""
    sent = 0
    with contextlib.suppress(OSError):
        while sent < len(data):
            connection.settimeout(0.2)
            sent += connection.send(data[sent : sent + 65536])
            connection.settimeout(0.0)
            with contextlib.suppress(BlockingIOError):
                connection.recv(1 << 16)
    return sent


def odd_frame(random: Random) -> bytes:
    """A frame, or what looks like one: reserved flags, lengths that lie, commands in the middle."""
    data = random.randbytes(random.choice((0, 1, 5, 16, 100, 255, 256, 5000)))
    kind = random.randrange(6)
    if kind == 0:
        return bytes([random.randrange(256), random.randrange(256)]) + data
    if kind == 1:
        length = random.choice((2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 1 << 20, (1 << 20) + 1))
        return bytes([random.choice((LONG, LONG | MORE, LONG | COMMAND))]) + length.to_bytes(8, "big") + data
    if kind == 2:
        name = random.choice((b"\x05READY", b"\x05ERROR", b"\x04PING\0\x10", b"\x04PONG", b"\x09SUBSCRIBE", b"\xff"))
        body = name + data[:200]
        return bytes([COMMAND, len(body)]) + body
    return frame(data, more=random.random() < 0.5)
