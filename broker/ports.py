"""The broker's TCP endpoints, which are closed while the process has too many open files.

Anybody who reaches one may connect, with or without a key, and each connection takes a file until its handshake fails
or times out. ZeroMQ aborts a process that has no file left for a connection to its `ipc://` socket.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import Any

import zmq

KEPT = 4
"""One in this many files is kept for everything but TCP connections."""


class Ports:
    """Opens, closes and reopens the TCP endpoints of one ROUTER."""

    def __init__(self, router: zmq.Socket[Any]) -> None:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._ceiling = most - most // KEPT
        self._router = router
        self._open: set[str] = set()
        self._closed: set[str] = set()

    def open(self, endpoint: str) -> None:
        """Raises zmq.ZMQError if it cannot be bound."""
        self._router.bind(endpoint)
        self._open.add(self._router.getsockopt_string(zmq.LAST_ENDPOINT))

    def accepted(self, number: int) -> bool:
        """A connection took the lowest free file, `number`. Returns whether the endpoints were closed because of it."""
        if number < self._ceiling or not self._open:
            return False
        for endpoint in self._open:
            self._router.unbind(endpoint)
        self._closed |= self._open
        self._open.clear()
        return True

    def open_again(self) -> bool:
        """Reopen closed endpoints if there are enough files again. Returns whether all of them are open now."""
        if not self._closed or len(os.listdir("/proc/self/fd")) >= self._ceiling // 2:
            return False
        for endpoint in list(self._closed):
            with contextlib.suppress(zmq.ZMQError):  # another program took the port: the next call tries again
                self.open(endpoint)
                self._closed.remove(endpoint)
        return not self._closed
