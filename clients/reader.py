"""What the reader of a streamed turn has seen: its pieces, its progress, and how it ended. It never waits."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from clients.calls import Call
from clients.exchange import Event, Placed, Progress, Result, Text, cancelled
from clients.requests import Reply, reply_of
from ssmprov.errors import SsmprovError

BATCH = 8
"""Pieces that a reader takes before it tells the core: far fewer than half a window."""

B = TypeVar("B")


class Source(Protocol[B]):
    """The client that a stream belongs to."""

    def open(self, call: Call) -> B: ...
    def cancel(self, request_id: bytes, mode: str = "drop") -> None: ...
    def forget(self, request_id: bytes, box: B) -> None: ...
    def consumed(self, request_id: bytes, pieces: int) -> None: ...


class Reader(Generic[B]):
    """The reading end of one streamed turn, which both faces' streams build on.

    The pieces are whole characters. The turn's error is raised when reading reaches it, and again by the reply.
    """

    def __init__(
        self,
        source: Source[B],
        call: Call,
        on_progress: Callable[[int, int], object] | None = None,
        on_place: Callable[[int], object] | None = None,
    ) -> None:
        self.pieces: list[str] = []
        self.progress = (0, 0)
        self.tokens = 0
        self._source = source
        self._call = call
        self._on_progress = on_progress
        self._on_place = on_place
        self._ended = False
        self._taken = 0
        self._reply: Reply | None = None
        self._error: SsmprovError | None = None
        self._box = source.open(call)

    @property
    def id(self) -> bytes:
        """The request's 16 bytes."""
        return self._call.id

    def cancel(self, mode: str = "keep") -> None:
        """Ask to end early. Keep reading to learn how it ended."""
        self._source.cancel(self.id, mode)

    def close(self) -> None:
        """Drop the turn if it has not ended."""
        if not self._ended:
            self._source.forget(self.id, self._box)
            self._take(cancelled("the stream was closed before its end"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, event: Event) -> str | None:
        """Record an event and return the piece of text in it, if any."""
        match event:
            case Text(text, tokens):
                self.pieces.append(text)
                self.tokens = max(self.tokens, tokens)
                self._taken += 1
                if self._taken == BATCH:
                    self._taken = 0
                    self._source.consumed(self.id, BATCH)
                return text
            case Progress(done, total):
                self.progress = (done, total)
                if self._on_progress is not None:
                    self._on_progress(done, total)
            case Placed(place):
                if self._on_place is not None:
                    self._on_place(place)
            case Result(result, _, error):
                self._ended = True
                self._error = error
                if error is None:
                    self._reply = reply_of(self._call, result, "".join(self.pieces))
        return None

    def _finished(self) -> Reply:
        """The reply of a turn that has ended. Raises its error."""
        if self._error is not None:
            raise self._error
        assert self._reply is not None, "the turn has not ended"
        return self._reply
