"""The thread of a blocking client. Only this thread touches the socket and the core."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import zmq

from clients import fork, link
from clients.core import Action, Core
from clients.exchange import Event, Result, cancelled
from ssmprov import sockets, wire
from ssmprov.errors import SsmprovError
from ssmprov.keys import Credentials

BATCH = 256
"""Messages to take before checking commands and times."""

CLOSE_S = 2.0

Box = SimpleQueue[Event]
"""Holds the events of one request; the core's windows limit how many."""

Command = Callable[[float], list[Action]]


class LinkThread(threading.Thread):
    """Runs a core on a DEALER socket. Other threads `post` commands; events come back in each request's box."""

    def __init__(self, core: Core, endpoint: str, credentials: Credentials | None = None) -> None:
        super().__init__(name="ssmprov client", daemon=True)
        self._core = core
        self._endpoint = endpoint
        self._credentials = credentials
        self._redial_at = math.inf
        self._desk: link.Desk[Box] = link.Desk(Box.put)
        self._commands: deque[Command] = deque()
        self._closing = False
        self._failed: SsmprovError | None = None
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor = self._socket.get_monitor_socket(sockets.EVENTS)
        try:
            sockets.connect_dealer(self._socket, endpoint, credentials)
        except BaseException:
            self._close_sockets()
            raise
        self._awake, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._awake, False)
        self.start()
        fork.watch(self)

    # -- for other threads

    def open(self, request: wire.Request, payloads: list[bytes], kind: str) -> Box:
        """Open a request. The box gets its events, and in the end always a `Result`."""
        box: Box = SimpleQueue()

        def begin(now: float) -> list[Action]:
            if self._closing:  # it came after BYE, so no one would answer it
                box.put(cancelled("this client is closed"))
                return []
            try:
                actions = self._core.open(request, payloads, kind, now)
            except SsmprovError as error:
                box.put(Result(error=error))
                return []
            self._desk.boxes[request.id] = box
            return actions

        if not self.post(begin):
            box.put(Result(error=self._failed) if self._failed else cancelled("this client is closed"))
        return box

    def forget(self, request_id: bytes, box: Box) -> None:
        """Cancel a request that is no longer wanted, if this is still its box."""

        def end(_now: float) -> list[Action]:
            return self._core.forget(request_id) if self._desk.drop(request_id, box) else []

        self.post(end)

    def post(self, command: Command) -> bool:
        """Run a command on the thread; False if the thread has stopped."""
        with self._lock:
            if self._closing or self._failed is not None:
                return False
            self._commands.append(command)
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake, b"\0")
            return True

    def close(self) -> None:
        """Send BYE and stop, within about two seconds."""
        self.post(self._leave)
        self.join(CLOSE_S)

    def orphan(self, error: SsmprovError) -> None:
        """End all calls in a forked child, where this thread does not run."""
        self._lock = threading.Lock()  # a thread of the parent may have held the old one
        self._failed = error
        self._commands.clear()
        self._desk.end(error)

    # -- on the thread

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the threads that wait
        try:
            self._serve()
        except Exception as fault:
            self._fail(fault)
        finally:
            self._close_sockets()
            with self._lock:
                self._closing = True
                os.close(self._awake)
                os.close(self._wake)

    def _serve(self) -> None:
        poller = zmq.Poller()
        monitor = self._monitor.FD
        poller.register(monitor, zmq.POLLIN)  # cheaper than its socket, but it only reports changes: so look first
        self._watch()
        poller.register(self._awake, zmq.POLLIN)
        next_tick = 0.0
        while not self._closing or self._commands:
            poller.register(self._socket, zmq.POLLIN | (zmq.POLLOUT if self._desk.outbox else 0))
            due = min(next_tick if self._core.busy else math.inf, self._redial_at)
            pause_ms = None if due == math.inf else max(0, int((due - time.monotonic()) * 1000) + 1)
            ready = dict(poller.poll(pause_ms))
            drained = self._receive() if self._socket in ready else True
            if monitor in ready:
                self._watch()
            if self._awake in ready:
                self._obey()
            now = time.monotonic()
            if now >= self._redial_at:
                self._redial_at = math.inf
                sockets.redial(self._socket, self._endpoint)
            if drained and now >= next_tick:
                next_tick = now + link.TICK_S
                self._desk.file(self._core.tick(now))
            self._flush()

    def _receive(self) -> bool:
        """Receive messages in bounded batches and return whether the socket is now empty."""
        for _ in range(BATCH):
            if not sockets.has_more(self._socket):
                return True
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            self._desk.file(self._core.received(frames, time.monotonic()))
        return False

    def _watch(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
                now = time.monotonic()
                self._desk.outbox.clear()
                if sockets.is_connection(frames):
                    self._desk.file(self._core.connected(now))
                elif error := sockets.refusal(frames, self._endpoint, self._credentials):
                    self._redial_at = now + sockets.REDIAL_S
                    self._desk.file(self._core.turned_away(error, now))
                else:
                    self._desk.file(self._core.disconnected(now, sockets.suspicion(frames, self._credentials)))

    def _obey(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._awake, 4096)
        while self._commands:
            self._desk.file(self._commands.popleft()(time.monotonic()))

    def _flush(self) -> None:
        while self._desk.outbox:
            try:
                sockets.send(self._socket, self._desk.outbox[0])
            except zmq.Again:
                return
            self._desk.outbox.popleft()

    def _leave(self, _now: float) -> list[Action]:
        self._closing = True
        return self._core.close()

    def _fail(self, fault: Exception) -> None:
        with self._lock:
            self._failed = self._desk.fail(fault)
        for command in self._commands:  # what was being opened: it ends at once
            with contextlib.suppress(Exception):
                command(time.monotonic())
        self._desk.fail(fault)

    def _close_sockets(self) -> None:
        linger: dict[str, Any] = {"linger": link.LINGER_MS}
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(**linger)
        self._context.term()
