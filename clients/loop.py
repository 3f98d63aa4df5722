"""The tasks behind an asyncio client: they run a core on a DEALER socket, in the event loop that first used it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import zmq
import zmq.asyncio

from clients import fork, link
from clients.core import Action, Core
from clients.exchange import Event
from ssmprov import sockets, wire
from ssmprov.errors import Cancelled, SsmprovError
from ssmprov.keys import Credentials

DRAIN_TURNS = 100
"""How often a tick lets the receiving task run while messages wait, before it continues without them."""

RETRY_S = 0.005

Box = asyncio.Queue[Event]


class LinkTasks:
    """A core on its socket. All methods belong to one event loop."""

    def __init__(self, core: Core, endpoint: str, credentials: Credentials | None = None) -> None:
        self._core = core
        self._endpoint = endpoint
        self._credentials = credentials
        self._desk: link.Desk[Box] = link.Desk(Box.put_nowait)
        self._busy = asyncio.Event()
        self._closed = False
        self._orphaned = False
        self._failed: SsmprovError | None = None
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._monitor: zmq.asyncio.Socket = self._socket.get_monitor_socket(sockets.EVENTS)
        try:
            sockets.connect_dealer(self._socket, endpoint, credentials)
        except BaseException:
            self._close_sockets()
            self._context.term()
            raise
        self._writing: asyncio.Task[None] | None = None
        self._tasks = [
            asyncio.create_task(self._guard(work), name=f"ssmprov client {work.__name__}")
            for work in (self._receive, self._watch, self._tick)
        ]
        fork.watch(self)

    def open(self, request: wire.Request, payloads: list[bytes], kind: str) -> Box:
        """Open a request. The box gets its events, and in the end always a `Result`."""
        if self._failed is not None:
            raise self._failed
        if self._closed:
            raise Cancelled("this client is closed")
        actions = self._core.open(request, payloads, kind, time.monotonic())
        box = self._desk.boxes[request.id] = Box()
        self._busy.set()
        self.act(actions)
        return box

    def forget(self, request_id: bytes, box: Box) -> None:
        """Cancel a request that is no longer wanted, if this is still its box."""
        if self._desk.drop(request_id, box):
            self.act(self._core.forget(request_id))

    def orphan(self, error: SsmprovError) -> None:
        """End all calls in a forked child, where the event loop of these tasks does not run."""
        self._failed = error
        self._closed = self._orphaned = True
        self._desk.end(error)

    def act(self, actions: list[Action]) -> None:
        """Carry out the core's actions. In a forked child there is nobody to tell."""
        if self._orphaned:
            return
        self._desk.file(actions)
        self._flush()

    async def close(self) -> None:
        """Send BYE and stop. Open requests end with Cancelled."""
        if self._closed:
            return
        self._closed = True
        self.act(self._core.close())
        tasks = [*self._tasks, *([self._writing] if self._writing else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()
        await asyncio.to_thread(self._context.term)

    def _flush(self) -> None:
        if self._socket.closed:
            return
        while self._desk.outbox:
            sent: asyncio.Future[Any] = asyncio.ensure_future(
                self._socket.send_multipart(self._desk.outbox[0], flags=zmq.NOBLOCK)
            )
            if isinstance(sent.exception(), zmq.Again):
                if self._writing is None or self._writing.done():
                    self._writing = asyncio.create_task(self._guard(self._write), name="ssmprov client write")
                return
            sent.result()
            self._desk.outbox.popleft()

    async def _write(self) -> None:
        """The socket was full: try again in a moment."""
        await asyncio.sleep(RETRY_S)
        self._writing = None
        self._flush()

    async def _receive(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            self.act(self._core.received(frames, time.monotonic()))

    async def _watch(self) -> None:
        while True:
            frames = await self._monitor.recv_multipart()
            now = time.monotonic()
            self._desk.outbox.clear()
            if sockets.is_connection(frames):
                self.act(self._core.connected(now))
            elif error := sockets.refusal(frames, self._endpoint, self._credentials):
                self.act(self._core.turned_away(error, now))
                asyncio.get_running_loop().call_later(sockets.REDIAL_S, self._redial)
            else:
                self.act(self._core.disconnected(now, sockets.suspicion(frames, self._credentials)))

    def _redial(self) -> None:
        if not self._socket.closed:
            sockets.redial(self._socket, self._endpoint)

    async def _tick(self) -> None:
        while True:
            await self._busy.wait()
            await asyncio.sleep(link.TICK_S)
            for _ in range(DRAIN_TURNS):
                if not await self._socket.poll(0):
                    break
                await asyncio.sleep(0)
            self.act(self._core.tick(time.monotonic()))
            if not self._core.busy:
                self._busy.clear()

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception as fault:
            self._failed = self._desk.fail(fault)

    def _close_sockets(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=link.LINGER_MS)
