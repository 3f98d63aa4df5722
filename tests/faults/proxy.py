"""A TCP relay whose connections a test makes bad: slow, dripping, half-open, cut. Bytes are never reordered.

It runs in a thread of its own. `up` is what flows to the server, `down` what flows back; each can be changed at any
time, and holds for what is read from then on.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

READ_BYTES = 64 * 1024
RESET = struct.pack("ii", 1, 0)
ROUNDS = 10
"""Of the loop, in which what was accepted comes as far as a task that can be ended: a few would do."""


@dataclass(slots=True)
class Flow:
    """One direction. `swallow` takes everything and passes nothing on, as a half-open connection does."""

    delay_s: float = 0.0
    drip_s: float = 0.0  # seconds for each byte
    swallow: bool = False
    passed: int = 0  # bytes


class Proxy:
    """Relays connections of 127.0.0.1:`port` to a port of this machine. Close it, or use it in a `with`."""

    def __init__(self, target: int) -> None:
        self.up = Flow()
        self.down = Flow()
        self.connections = 0
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._server = self._run(self._listen())
        self.port: int = self._server.sockets[0].getsockname()[1]

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def swallow(self, up: bool = True, down: bool = True) -> None:
        """Make the connections half-open: nobody is told, and nothing arrives any more."""
        self.up.swallow, self.down.swallow = up, down

    def heal(self) -> None:
        """Relay again. A connection that has lost bytes is no use any more, so all are cut."""
        self.up, self.down = Flow(), Flow()
        self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """End every connection on both sides: with a FIN, or with a RST, which also throws away what is under way."""
        self._run(self._cut(reset))

    def close(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)  # type: ignore[arg-type]

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def _close(self) -> None:
        self._server.close()
        for _ in range(ROUNDS):
            await asyncio.sleep(0)
        await self._cut(True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _cut(self, reset: bool) -> None:
        self._ended.set()
        self._ended = asyncio.Event()
        for writer in list(self._open):
            if reset and not writer.transport.is_closing():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()
            else:
                writer.close()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._relay(reader, writer)
        finally:
            await _closed(writer)
            self._open.discard(writer)
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._open.add(far_writer)
        self.connections += 1
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, lambda: self.up))
                group.create_task(self._pump(far_reader, writer, lambda: self.down))
        finally:
            await _closed(far_writer)
            self._open.discard(far_writer)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flow_of: Callable[[], Flow]
    ) -> None:
        """Read on while the delayed pieces wait their time, so that a delay is no limit to the rate."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        ended = self._ended
        loop = asyncio.get_running_loop()

        async def write() -> None:
            while True:
                due, data = await waiting.get()
                if (left := due - loop.time()) > 0:
                    await asyncio.sleep(left)
                if not data:
                    if writer.can_write_eof():
                        writer.write_eof()
                    return
                flow = flow_of()
                for piece in [data] if not flow.drip_s else [data[i : i + 1] for i in range(len(data))]:
                    flow.passed += len(piece)  # first: whoever has the bytes may look at once
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(flow.drip_s)

        async with asyncio.TaskGroup() as group:
            writing = group.create_task(_forgiving(write))
            while not writing.done():
                try:
                    data = await reader.read(READ_BYTES)
                except OSError:
                    data = b""
                flow = flow_of()
                if not flow.swallow:
                    waiting.put_nowait((loop.time() + flow.delay_s, data))
                elif not data:  # nor is an end passed on
                    await ended.wait()
                    writing.cancel()
                if not data:
                    break


async def _forgiving(write: Callable[[], object]) -> None:
    with contextlib.suppress(OSError):
        await write()  # type: ignore[misc]


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
