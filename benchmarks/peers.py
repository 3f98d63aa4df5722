"""Sockets without ssmprov, each in a separate process: the lowest possible cost of a round trip.

router FRONT          answers each request itself: bare DEALER-ROUTER
proxy FRONT BACK      zmq.proxy between clients and an answerer
forwarder FRONT       the same with a Poller loop in Python over one ROUTER, like the broker's but without decisions
answerer BACK [NAME]  answers the requests that a proxy or a forwarder passes on
worker FRONT MODEL [SLOTS]
                      registers with a broker as the worker of a model, and answers each request at once
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from socket import gethostname

import zmq

from ssmprov import wire
from ssmprov.names import worker_name
from ssmprov.process import die_with_parent

ANSWERER = b"answerer"
PULSE_MS = 200


def router(context: zmq.Context[zmq.Socket[bytes]], front: str) -> None:
    socket = _bound(context, zmq.ROUTER, front)
    while True:
        socket.send_multipart(socket.recv_multipart())


def proxy(context: zmq.Context[zmq.Socket[bytes]], front: str, back: str) -> None:
    clients, answerers = _bound(context, zmq.ROUTER, front), _bound(context, zmq.DEALER, back)
    zmq.proxy(clients, answerers)


def forwarder(context: zmq.Context[zmq.Socket[bytes]], front: str) -> None:
    socket = _bound(context, zmq.ROUTER, front)
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    while True:
        poller.poll()
        try:
            while True:
                route, *frames = socket.recv_multipart(zmq.NOBLOCK)
                socket.send_multipart(frames if route == ANSWERER else [ANSWERER, route, *frames])
        except zmq.Again:
            continue


def answerer(context: zmq.Context[zmq.Socket[bytes]], back: str, name: str = "") -> None:
    socket = context.socket(zmq.DEALER)
    if name:
        socket.setsockopt(zmq.IDENTITY, name.encode())
    socket.connect(back)
    while True:
        socket.send_multipart(socket.recv_multipart())


def worker(context: zmq.Context[zmq.Socket[bytes]], front: str, model: str, slots: str = "1") -> None:
    socket = context.socket(zmq.DEALER)
    socket.connect(front)
    name = worker_name(model, 0)
    card = wire.ModelCard(name=model, runtime="none", fingerprint="0" * 64)
    socket.send_multipart(wire.encode(wire.Hello(wire.new_id(), "worker", agent=name)))
    offer = wire.Register(worker=name, model=card, store="none", slots=int(slots), pid=os.getpid(), host=gethostname())
    socket.send_multipart(wire.encode(offer))
    epoch = 0
    while True:
        if not socket.poll(PULSE_MS):
            socket.send_multipart(wire.encode(wire.Pulse()))
            continue
        message, _ = wire.decode(socket.recv_multipart())
        if isinstance(message, wire.Register):
            epoch = message.epoch
        elif isinstance(message, wire.Request):
            final, payloads = wire.final(wire.Final(message.id, message.attempt, epoch), None)
            socket.send_multipart(wire.encode(final, payloads))


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.bind(endpoint)
    return socket


def main(kind: str, *arguments: str) -> None:
    die_with_parent()
    print("true", flush=True)
    kinds: dict[str, Callable[..., None]] = {
        "router": router,
        "proxy": proxy,
        "forwarder": forwarder,
        "answerer": answerer,
        "worker": worker,
    }
    kinds[kind](zmq.Context(), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
