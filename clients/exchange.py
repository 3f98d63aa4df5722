"""One open request: how much of its answer has arrived, how much the reader has taken, how much of its file was sent.

Offsets count the bytes of the reply from 0. Every piece says at which byte it begins, so the pieces of several attempts
can be joined: an overlap is cut, and a gap is never skipped. The reader only gets whole characters.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from ssmprov import operations, wire
from ssmprov.errors import Cancelled, SsmprovError

TEXT_WINDOW = 32
"""The most PARTIALs that may be on their way or unread."""

FILE_WINDOW = 8
"""The most CHUNKs, of at most 1 MiB each, that may be on their way or unread."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the reply, and the number of tokens written so far (0 if that is not known)."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of an exported file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """The broker has accepted the request; `place` others are ahead of it."""

    place: int


@dataclass(frozen=True, slots=True)
class Progress:
    """The prefill has read `done` of `total` tokens."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Want:
    """The worker is ready for the next piece of the file, from byte `offset`: answer with `Core.supply`."""

    offset: int


@dataclass(frozen=True, slots=True)
class Result:
    """The end of a request; each has one. `body` is the text if it was not streamed."""

    result: Raw = field(default_factory=lambda: Raw(b"\xc0"))
    body: bytes = b""
    error: SsmprovError | None = None


Event = Text | Data | Placed | Progress | Want | Result


class Gap(Exception):
    """A piece is missing before this one: the request must be sent again with `have`."""


class TooLong(Exception):
    """The reply is larger than the protocol allows."""


@dataclass(slots=True)
class Window:
    """The reader's credit: how many pieces were granted, how many of them arrived, how many are not yet read."""

    size: int
    granted: int = 0
    arrived: int = 0
    unread: int = 0

    def begin(self) -> int:
        """The credit that a new attempt begins with."""
        self.arrived = 0
        self.granted = max(0, self.size - self.unread)
        return self.granted

    def arrive(self, seq: int) -> None:
        """The piece `seq` of this attempt has arrived. A number beyond the credit counts as the credit."""
        self.arrived = max(self.arrived, min(seq, self.granted))

    def grant(self) -> int:
        """The credit to add now: 0 until half of the window is free."""
        room = self.size - self.unread - (self.granted - self.arrived)
        if self.size == 0 or room < self.size // 2:
            return 0
        self.granted += room
        return room


@dataclass(slots=True)
class Upload:
    """The file of an import while it is sent: the next piece begins at byte `offset` and has the number `seq` + 1."""

    offset: int = 0
    seq: int = 0
    allowed: int = 0
    asked: bool = False
    finished: bool = False


@dataclass(slots=True)
class Exchange:
    """One open request. `kind` says what happens to its pieces: a reader gets text or data, or they are collected."""

    request: wire.Request
    payloads: list[bytes]
    kind: str  # "collect", "text" or "data"
    opened_at: float
    deadline: float
    attempt: int = 0
    have: int = 0
    gaps: int = 0
    known: bool = False
    retry_at: float | None = None
    cancel_mode: str = ""
    window: Window = field(init=False)
    upload: Upload = field(default_factory=Upload)
    _body: bytearray = field(default_factory=bytearray)
    _decoder: codecs.IncrementalDecoder = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = {"collect": 0, "text": TEXT_WINDOW, "data": FILE_WINDOW}[self.kind]
        self.window = Window(size)
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    @property
    def id(self) -> bytes:
        return self.request.id

    @property
    def resendable(self) -> bool:
        """Whether it can be sent again after a lost connection. A half-transferred file cannot."""
        taken = operations.find(self.request.op).file == "in" and not self.upload.finished
        file = self.kind == "data" or taken
        return self.attempt == 0 or not file

    def next_request(self, now: float) -> wire.Request:
        """The REQUEST of a new attempt. It continues after the text that has arrived. A file starts again."""
        self.attempt += 1
        self.upload = Upload()
        self.retry_at = None
        return msgspec.structs.replace(
            self.request,
            attempt=self.attempt,
            ttl_ms=max(1, int((self.deadline - now) * 1000)),
            credit=self.window.begin(),
            have=self.have,
        )

    def accepted(self, message: wire.Accepted) -> list[Event]:
        """The broker has accepted the request. The reader of a stream learns its place in the queue."""
        streamed = self.kind == "text" and message.attempt == self.attempt
        return [Placed(message.place)] if streamed else []

    def partial(self, message: wire.Partial, payloads: list[bytes]) -> list[Event]:
        """Take in a PARTIAL. Raises Gap, TooLong, or UnicodeDecodeError if it is not valid UTF-8."""
        if message.attempt != self.attempt:
            return []
        self.window.arrive(message.seq)
        events: list[Event] = [Progress(message.done, message.total)] if message.total else []
        return events + self._pieces(message.offset, b"".join(payloads), message.tokens)

    def chunk(self, message: wire.Chunk, payloads: list[bytes]) -> list[Event]:
        """Take in a CHUNK of an exported file. Raises Gap."""
        if message.attempt != self.attempt or self.kind != "data":
            return []
        self.window.arrive(message.seq)
        return self._pieces(message.offset, b"".join(payloads))

    def final(self, message: wire.Final, payloads: list[bytes]) -> list[Event]:
        """Take in a successful FINAL: the last piece, then the result. Raises the same errors as `partial`."""
        result, text = wire.take_result(message, payloads)
        events = self._pieces(message.offset, text) if self.kind != "data" else []
        self._decoder.decode(b"", final=True)
        return [*events, Result(result, bytes(self._body))]

    def credited(self, message: wire.Credit) -> list[Event]:
        """The worker is ready for more of an import's file."""
        self.upload.allowed += message.n
        return self._want()

    def supplied(self, offset: int, data: bytes, last: bool) -> tuple[wire.Chunk | None, list[Event]]:
        """The CHUNK for a piece of the file that the caller supplied; None if it is no longer wanted."""
        upload = self.upload
        if not upload.asked or offset != upload.offset:
            return None, []
        upload.asked = False
        upload.allowed -= 1
        upload.seq += 1
        upload.offset += len(data)
        upload.finished = last
        chunk = wire.Chunk(id=self.id, seq=upload.seq, attempt=self.attempt, offset=offset, last=last)
        return chunk, [] if last else self._want()

    def _want(self) -> list[Event]:
        upload = self.upload
        if upload.asked or upload.finished or upload.allowed <= 0:
            return []
        upload.asked = True
        return [Want(upload.offset)]

    def _pieces(self, offset: int, data: bytes, tokens: int = 0) -> list[Event]:
        if offset > self.have:
            raise Gap
        fresh = data[self.have - offset :]
        if not fresh:
            return []
        self.have += len(fresh)
        if self.kind == "data":
            self.window.unread += 1
            return [Data(fresh)]
        if self.have > wire.MAX_TEXT:
            raise TooLong
        if self.kind == "collect":
            self._body += fresh
            return []
        text = self._decoder.decode(fresh)
        if not text:
            return []
        self.window.unread += 1
        return [Text(text, tokens)]


def cancelled(why: str) -> Result:
    return Result(error=Cancelled(why))
