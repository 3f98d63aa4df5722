"""Sockets without ssmprov, each in a process of its own: what a round trip costs at least.

router FRONT          answers each request itself: the bare DEALER-ROUTER
proxy FRONT BACK      zmq.proxy between clients and an answerer
forwarder FRONT       the same as a Poller loop in Python over one ROUTER, as the broker has it, that decides nothing
answerer BACK [NAME]  answers what a proxy or a forwarder hands on
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import zmq

from ssmprov.process import die_with_parent

ANSWERER = b"answerer"


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
    }
    kinds[kind](zmq.Context(), *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
