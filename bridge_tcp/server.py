"""The TCP server of one port. Each connection carries one request, which the session answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import select
from collections.abc import Iterator

from bridge_tcp.framing import NUL, Unwelcome, read_request, until_gone
from bridge_tcp.port import Port
from bridge_tcp.replies import ERROR, Refusal
from bridge_tcp.session import Session
from clients.aio import AsyncClient
from ssmprov.causes import not_listening
from ssmprov.configuration import BridgeTable, is_loopback, parse_size
from ssmprov.errors import BadRequest, SsmprovError

log = logging.getLogger(__name__)

BACKLOG = 128
WRITE_S = 30.0
"""How long a client may take to accept its reply."""

LINGER_S = 1.0
"""How long the rest of a rejected request is read and discarded, so that its sender gets the reply."""

DRAIN_S = 8.0
"""How long running requests may continue at shutdown. Then their turns end at the next token and are answered."""

CLEAN_AGAIN_S = 5.0


class Server:
    """Serves one port until `stop` is set."""

    def __init__(self, client: AsyncClient, table: BridgeTable, *, insecure: bool = False) -> None:
        """`insecure` allows a host that other machines can reach. Without it, such a host raises BadRequest."""
        if not (insecure or is_loopback(table.host)):
            raise BadRequest(
                f"{table.host} can be reached from other machines, and this protocol has no authentication: listen on "
                "127.0.0.1 (and connect through ssh), or pass --insecure"
            )
        self._client = client
        self._table = table
        self._limit = parse_size(table.request_bytes)
        self._reading: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._serving: set[asyncio.Task[None]] = set()
        self._placed: set[asyncio.Task[None]] = set()
        self._session: Session
        self.port = 0

    async def start(self) -> asyncio.Server:
        """Listen. Raises Conflict if another program uses the port or the address is not on this machine, or another
        error that says why not.
        """
        table = self._table
        try:
            server = await asyncio.start_server(
                self._accept, table.host, table.port, backlog=BACKLOG, start_serving=False
            )
            self.port = server.sockets[0].getsockname()[1]
            self._session = Session(Port(self._client, table.model, self.port, table.turn_s))
            await server.start_serving()
        except OSError as error:
            raise not_listening(error, f"{table.host}:{table.port}", "`port` or `host` of its [[bridge]]") from None
        if not is_loopback(table.host):
            log.warning("%s can be reached from other machines, and this protocol has no authentication", table.host)
        return server

    async def serve(self, server: asyncio.Server, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Then accept nothing more and let running requests end."""
        cleaning = asyncio.create_task(self._clean())
        await stop.wait()
        server.close()
        cleaning.cancel()
        for writer in self._reading.values():
            writer.transport.abort()
        draining = asyncio.ensure_future(self._drained())
        await asyncio.wait({draining}, timeout=DRAIN_S)
        self._session.order.end_all("keep")
        await asyncio.wait({draining}, timeout=DRAIN_S)

    async def _drained(self) -> None:
        while self._serving:
            await asyncio.wait(self._serving)
        await self._session.order.all_done()

    async def _clean(self) -> None:
        """Remove the temporary names of a killed bridge, as soon as the model is served."""
        while True:
            with contextlib.suppress(SsmprovError):
                if removed := await self._session.clean():
                    log.info("removed %d temporary contexts that an earlier run left behind", removed)
                return
            await asyncio.sleep(CLEAN_AGAIN_S)

    # -- one connection

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError):
                await self._connection(task, reader, writer)
        finally:
            self._placed.discard(task)
            self._serving.discard(task)
            if writer.transport.get_write_buffer_size():  # the client did not accept its reply
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connection(
        self, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if not self._place(task):
            await self._refuse(reader, writer, f"busy: {self._table.connections} requests are already running")
            return
        try:
            with self._as_reading(task, writer):
                data = await read_request(reader, self._limit, self._table.idle_s)
        except Unwelcome as unwelcome:
            self._placed.discard(task)  # a rejected connection may linger, but must not take a place
            await self._refuse(reader, writer, unwelcome)
        else:
            if data is None:
                await _send(writer, "")
            else:
                await self._answer(data, reader, writer)

    async def _refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, why: object) -> None:
        """Answer, then discard input for a moment: closing with unread bytes would lose the answer."""
        await _send(writer, str(Refusal(ERROR, why)))
        if len(self._serving) <= 2 * self._table.connections:
            writer.write_eof()
            async with asyncio.timeout(LINGER_S):
                await until_gone(reader)

    async def _answer(self, data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request. Its turn is dropped if the client disconnects before the reply."""
        ticket, command = self._session.arrive(data)
        watching = asyncio.create_task(until_gone(reader))
        watching.add_done_callback(lambda _: ticket.end("drop"))
        try:
            reply = await self._session.answer(ticket, command)
            await _send(writer, reply)
        finally:
            watching.cancel()

    def _place(self, task: asyncio.Task[None]) -> bool:
        """Give a connection a place, if necessary that of the oldest one that has sent nothing."""
        if len(self._placed) >= self._table.connections:
            idle = ((other, writer) for other, writer in self._reading.items() if not _has_news(writer))
            other, writer = next(idle, (None, None))
            if other is None or writer is None:
                return False
            del self._reading[other]
            self._placed.discard(other)
            writer.transport.abort()
        self._placed.add(task)
        return True

    @contextlib.contextmanager
    def _as_reading(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> Iterator[None]:
        self._reading[task] = writer
        try:
            yield
        finally:
            self._reading.pop(task, None)


def _has_news(writer: asyncio.StreamWriter) -> bool:
    """Whether its client has sent bytes that are not read yet, and so is not idle."""
    if writer.transport.is_closing():
        return False
    poller = select.poll()
    poller.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poller.poll(0))


async def _send(writer: asyncio.StreamWriter, reply: str) -> None:
    writer.write(reply.encode("utf-8") + NUL)
    async with asyncio.timeout(WRITE_S):
        await writer.drain()
