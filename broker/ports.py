"""The broker's TCP endpoints, which are closed while it is short of free files.

Whoever reaches one may connect, with a key or without, and each connection takes a file until its handshake has failed
or its time is over. A process that has none left for a connection to its `ipc://` socket is aborted by ZeroMQ.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any

import zmq

KEPT = 4
"""One of so many files is kept for all that is no connection over TCP."""


class Ports:
    """Opens, closes and opens again the TCP endpoints of one ROUTER."""

    def __init__(self, router: zmq.Socket[Any]) -> None:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._ceiling = most - most // KEPT
        self._router = router
        self._open: set[str] = set()
        self._closed: set[str] = set()

    def open(self, endpoint: str) -> None:
        """Raises zmq.ZMQError where it cannot be bound."""
        self._router.bind(endpoint)
        self._open.add(self._router.getsockopt_string(zmq.LAST_ENDPOINT))

    def accepted(self, number: int) -> bool:
        """A connection took the file of that number, the lowest that was free; whether the endpoints close for it."""
        if number < self._ceiling or not self._open:
            return False
        for endpoint in self._open:
            self._router.unbind(endpoint)
        self._closed |= self._open
        self._open.clear()
        return True

    def open_again(self) -> bool:
        """Open what was closed, where there are files again; whether that was done."""
        if not self._closed or len(os.listdir("/proc/self/fd")) >= self._ceiling // 2:
            return False
        for endpoint in list(self._closed):
            with contextlib.suppress(zmq.ZMQError):  # somebody took the port meanwhile: it is tried again
                self.open(endpoint)
                self._closed.remove(endpoint)
        return not self._closed
