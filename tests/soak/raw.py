"""A client that leaves without a word: a bare DEALER socket that sends one request and is gone."""

from __future__ import annotations

import time
from random import Random

import msgspec
import zmq

from clients.calls import encode_text
from soak.history import Order, Recorder
from soak.tap import record
from ssmprov import operations, sockets, wire

PATIENCE_MS = 1000


def request_of(order: Order) -> tuple[wire.Request, list[bytes]]:
    """The REQUEST of an order as a client would send it first."""
    args = wire.pack(args_of(order))
    ttl_ms = int(order.ttl_s * 1000)
    request = wire.Request(bytes.fromhex(order.id), order.op, order.model, order.context, ttl_ms=ttl_ms, args=args)
    return request, wire.split_text(encode_text(order.prompt))


def args_of(order: Order) -> msgspec.Struct:
    found: msgspec.Struct = msgspec.convert(order.args, operations.OPERATIONS[order.op].args)
    return found


def abandon(endpoint: str, order: Order, recorder: Recorder, link: str, random: Random) -> None:
    """Send the request, perhaps hear that it was taken, and vanish: without BYE, without the answer."""
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        sockets.connect_dealer(socket, endpoint)
        request, payloads = request_of(order)
        hello = wire.Hello(wire.new_id(), agent="soak: it will leave")
        for frames in (wire.encode(hello), wire.encode(request, payloads)):
            socket.send_multipart(frames)
        record(recorder, link, wire.encode(request, payloads))
        until = time.monotonic() + random.choice([0.0, 0.02, 0.1, 0.3])
        while (left := until - time.monotonic()) > 0 and socket.poll(min(PATIENCE_MS, left * 1000)):
            record(recorder, link, socket.recv_multipart())
    finally:
        socket.close(linger=50)
        context.term()
