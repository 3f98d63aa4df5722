"""A bridge's process, and how an old tool talks to it."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from cluster import PATIENCE_S, Cluster, Process
from rewording.reworded import original

SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "emoji", "pieces": ["\N{EARTH GLOBE EUROPE-AFRICA}", " é", "\n\n~~~(end)~~~\n\n"]},
        {"after": "slow", "pieces": ["s"] * 80},
        {"after": "on?", "pieces": ["yes\n", "(Turn 3", ") [USER]: ", "more"]},
        {"after": "odd", "pieces": ["x\n", "~~~(foo", " and more"]},
        {"after": "", "pieces": ["ok"]},
    ],
    "token_delay_s": 0.01,
}


class Bridge:
    """A bridge's process and port."""

    def __init__(self, cluster: Cluster, process: Process, ready: Path) -> None:
        self.cluster = cluster
        self.process = process
        process.expect("listens on")
        self.port: int = json.loads(ready.read_text())["port"]
        self.live = f"@bridge/{self.port}"

    def open(self, request: str | bytes = b"") -> socket.socket:
        """A connection on which a request was sent; its NUL is the caller's for bytes."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        connection.sendall(request if isinstance(request, bytes) else request.encode() + b"\0")
        return connection

    def say(self, request: str | bytes) -> str:
        """One request and its reply, as an old tool exchanges them."""
        with self.open(request) as connection:
            return heard(connection)

    def stop(self) -> int:
        return self.process.stop()


def heard(connection: socket.socket) -> str:
    """The reply up to its NUL; the connection must end right after it."""
    data = bytearray()
    while part := connection.recv(65536):
        data += part
    assert data.endswith(b"\0"), bytes(data)
    assert data.count(b"\0") == 1
    return original(data[:-1].decode())
