"""The asyncio client: the same methods as `clients.blocking.Client`, as coroutines of one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, Unpack

import msgspec

from clients import link, requests, saying
from clients.calls import TTL_S, Answer, Call, Plan, answer_of
from clients.core import CANCEL_MODES
from clients.exchange import Data, Result, Want
from clients.loop import Box, LinkTasks
from clients.reader import Reader
from clients.requests import Reply, TurnOptions
from clients.saying import SayOptions
from clients.signatures import sign, with_options
from clients.transfer import Download, Upload
from ssmprov import ops, wire
from ssmprov.errors import BadRequest, SsmprovError

P = ParamSpec("P")
T = TypeVar("T")


def method(plan: Callable[P, Plan[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    """Turn a plan into a coroutine method."""

    async def run(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(plan(*args, **kwargs))

    sign(run, plan, "AsyncClient")
    return run


class AsyncClient:
    """A client of one broker, in one event loop. Every coroutine may raise any error of `ssmprov.errors`.

    The parameters are those of `clients.blocking.Client`. It connects at the first call or on entering `async with`.
    Calls that name their model are sent in the order in which they begin. Cancelling the task of a call cancels
    the call (`drop`).
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        home: Path | None = None,
        timeout_s: float = 3.0,
        agent: str = "",
        patience_s: float = 10.0,
    ) -> None:
        self.endpoint = link.choose_endpoint(endpoint, home)
        self._credentials = link.choose_credentials(self.endpoint, home)
        self._core = link.core_of(self.endpoint, agent, timeout_s, patience_s)
        self._tasks: LinkTasks | None = None

    @property
    def _link(self) -> LinkTasks:
        if self._tasks is None:
            self._tasks = LinkTasks(self._core, self.endpoint, self._credentials)
        return self._tasks

    async def close(self) -> None:
        """Leave the broker. It cancels requests that save nothing and finishes those that save. Open calls raise
        Cancelled."""
        await self._link.close()

    async def __aenter__(self) -> AsyncClient:
        _ = self._link
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # -- turns

    @with_options(requests.turn)
    async def turn(
        self,
        prompt: str,
        *,
        on_text: Callable[[str], object] | None = None,
        on_progress: Callable[[int, int], object] | None = None,
        **options: Unpack[TurnOptions],
    ) -> Reply:
        """Run a turn to its end. `on_text` gets its pieces, `on_progress` the prompt's (done, total) tokens."""
        streamed = on_text is not None or on_progress is not None
        call = await self._run(requests.turn(prompt, stream=streamed, **options))
        return await self._finish(call, on_text, on_progress)

    @with_options(saying.say)
    async def say(
        self,
        text: str,
        *,
        on_text: Callable[[str], object] | None = None,
        on_progress: Callable[[int, int], object] | None = None,
        **options: Unpack[SayOptions],
    ) -> Reply:
        """Say something to a model; `reply.answer` is what it answers.

        With `to`, the turn continues the context of that name, or starts it, and is saved in it. Raises
        Conflict if another turn came between. Without `to`, nothing is saved.
        """
        streamed = on_text is not None or on_progress is not None
        call = await self._run(saying.say(text, stream=streamed, **options))
        return await self._finish(call, on_text, on_progress)

    async def _finish(
        self, call: Call, on_text: Callable[[str], object] | None, on_progress: Callable[[int, int], object] | None
    ) -> Reply:
        """Run the call of a turn to its end."""
        if call.kind == "collect":
            raw, text = await self._ask(call)
            return requests.reply_of(call, raw, text.decode("utf-8"))
        with AsyncStream(self, call, on_progress) as stream:
            async for piece in stream:
                if on_text is not None:
                    on_text(piece)
            return await stream.reply()

    @with_options(requests.turn)
    async def stream(
        self,
        prompt: str,
        *,
        on_progress: Callable[[int, int], object] | None = None,
        on_place: Callable[[int], object] | None = None,
        **options: Unpack[TurnOptions],
    ) -> AsyncStream:
        """Start a turn and iterate over its pieces. `on_place` gets the number of requests that are ahead of it."""
        call = await self._run(requests.turn(prompt, stream=True, **options))
        return AsyncStream(self, call, on_progress, on_place)

    def cancel(self, request_id: bytes, mode: str = "drop") -> None:
        """Ask to end a request early: `keep` what was read, `drop` it, or `close` the fence first."""
        if mode not in CANCEL_MODES:
            raise BadRequest(f"{mode!r} is not a way to cancel: use keep, drop or close")
        self._link.act(self._core.cancel(request_id, mode))

    async def call(
        self,
        op: str,
        args: msgspec.Struct,
        *,
        model: str = "",
        context: str = "",
        payload: bytes = b"",
        ttl_s: float = TTL_S,
        request_id: bytes | None = None,
    ) -> Answer:
        """Any operation of `ssmprov.operations` by name: its raw result and its text. `ask` decodes the result."""
        call = Call(op, args, model, context, payload=payload, ttl_s=ttl_s, id=request_id or wire.new_id())
        return await self._ask(call)

    # -- contexts, settings, status: signatures and bodies are in `clients.requests`

    ask = method(requests.ask)
    status = method(requests.status)
    models = method(requests.models)
    default_model = method(requests.default_model)
    ls = method(requests.ls)
    show = method(requests.show)
    text = method(requests.text)
    log = method(requests.log)
    tree = method(requests.tree)
    fork = method(requests.fork)
    move = method(requests.move)
    rm = method(requests.rm)
    verify = method(requests.verify)
    repair = method(requests.repair)
    gc = method(requests.gc)
    replay = method(requests.replay)
    probe = method(requests.probe)
    settings_ls = method(requests.settings_ls)
    settings_show = method(requests.settings_show)
    settings_set = method(requests.settings_set)

    async def export(self, ref: str, path: Path, *, model: str = "") -> ops.Exported:
        """Write a context with its lineage to a file, which appears when it is complete. Can also raise OSError."""
        call = await self._run(requests.export(ref, model))
        with contextlib.closing(Download(path)) as download, self._opened(call) as box:
            while True:
                match await box.get():
                    case Data(data):
                        await asyncio.to_thread(download.write, data)
                        self.consumed(call.id, 1)
                    case Result() as result:
                        exported = wire.unpack(answer_of(result)[0], ops.Exported)
                        await asyncio.to_thread(download.finish, exported)
                        return exported

    async def import_(self, path: Path, name: str, *, model: str = "", trust: bool = False) -> ops.Row:
        """Import an exported file under a name. Can also raise OSError.

        `trust` accepts the `kv.pkl` of an old runner. The file does not say which model wrote it, so you vouch for
        that.
        """
        with contextlib.closing(await asyncio.to_thread(Upload, path)) as upload:
            call = await self._run(requests.import_(name, model, upload.size, upload.sha256, trust))
            with self._opened(call) as box:
                while True:
                    match await box.get():
                        case Want(offset):
                            data, last = await asyncio.to_thread(upload.piece, offset)
                            self._link.act(self._core.supply(call.id, offset, data, last))
                        case Result() as result:
                            return wire.unpack(answer_of(result)[0], ops.Row)

    # -- how plans run

    async def _run(self, plan: Plan[T]) -> T:
        try:
            call = next(plan)
            while True:
                try:
                    answer = await self._ask(call)
                except SsmprovError as error:
                    call = plan.throw(error)
                else:
                    call = plan.send(answer)
        except StopIteration as done:
            value: T = done.value
            return value

    async def _ask(self, call: Call) -> Answer:
        with self._opened(call) as box:
            while True:
                event = await box.get()
                if isinstance(event, Result):
                    return answer_of(event)

    @contextlib.contextmanager
    def _opened(self, call: Call) -> Iterator[Box]:
        """Open a call; leaving before its result cancels it."""
        box = self.open(call)
        try:
            yield box
        except BaseException:
            self.forget(call.id, box)
            raise

    def open(self, call: Call) -> Box:
        """Start a call whose events the caller takes from the box. Raises BadRequest if it cannot be sent."""
        return self._link.open(*call.request(), call.kind)

    def forget(self, request_id: bytes, box: Box) -> None:
        """Cancel a call whose result is no longer wanted."""
        self._link.forget(request_id, box)

    def consumed(self, request_id: bytes, pieces: int) -> None:
        """Tell the broker that the reader took this many pieces, so that it may send more."""
        self._link.act(self._core.consumed(request_id, pieces))


class AsyncStream(Reader[Box]):
    """A turn in progress: `async for` its pieces, then `await reply()`."""

    async def reply(self) -> Reply:
        """The finished turn. Reads to the end first if necessary. Raises the turn's error."""
        async for _ in self:
            pass
        return self._finished()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        while not self._ended:
            piece = self._take(await self._box.get())
            if piece is not None:
                return piece
            if self._ended:
                self._finished()
        raise StopAsyncIteration
