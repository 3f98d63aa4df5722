"""The wire is simple enough for forty lines with pyzmq and the msgpack package alone, none of our code."""

from __future__ import annotations

import os
from typing import Any

import msgpack
import zmq
from cluster import Cluster


def send(socket: zmq.Socket[bytes], kind: bytes, header: dict[str, Any], *payloads: bytes) -> None:
    socket.send_multipart([b"SSP1" + kind, msgpack.packb(header), *payloads])


def receive(socket: zmq.Socket[bytes]) -> tuple[bytes, dict[str, Any], list[bytes]]:
    assert socket.poll(30_000)
    kind, header, *payloads = socket.recv_multipart()
    assert kind[:4] == b"SSP1"
    return kind[4:], msgpack.unpackb(header), payloads


def test_a_foreign_client_streams_a_turn_and_reads_its_context(talk: Cluster) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(talk.endpoint)
    send(socket, b"HELLO", {"client": os.urandom(16), "role": "client", "versions": [1]})
    assert receive(socket)[0] == b"HELLO"
    key = os.urandom(16)
    args = {"save": "foreign", "stream": True}
    send(
        socket, b"REQUEST", {"id": key, "op": "turn", "model": "talk", "credit": 100, "args": args}, b"(Turn 1) [ECHO]:"
    )
    text, seq, kind = b"", 0, b""
    while kind != b"FINAL":
        kind, header, payloads = receive(socket)
        if kind == b"PARTIAL":
            seq += 1
            assert header["seq"] == seq
            text = text[: header.get("offset", 0)] + b"".join(payloads)
    text = text[: header.get("offset", 0)] + b"".join(payloads)
    assert text == b" as you say.\n\n~~~(end)~~~\n\n"
    assert header["result"]["stop"] == "fence"
    send(socket, b"REQUEST", {"id": os.urandom(16), "op": "ckpt.show", "context": "foreign", "args": {"text": True}})
    while kind != b"FINAL" or header["id"] == key:
        kind, header, payloads = receive(socket)
    assert b"".join(payloads) == b"(Turn 1) [ECHO]:" + text
    send(socket, b"BYE", {})
    socket.close()
    context.term()
