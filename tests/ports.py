"""Ports for servers that a test starts."""

from __future__ import annotations

import random
import socket

SERVERS = range(20_000, 32_000)
"""Below those that the system gives to outgoing connections and to whoever asks for any port: nobody else takes one
between the look and the server's own start."""

_draw = random.SystemRandom()  # tests that seed `random` alike, in two processes, would draw the same ports


def free_port(host: str = "127.0.0.1") -> int:
    """A port on which nothing listens."""
    while True:
        with socket.socket() as probe:
            port = _draw.choice(SERVERS)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
