"""One open request: what of its answer has arrived, what its reader has taken, what of its file was sent.

The reply's text counts in bytes from 0. Every piece says at which byte it begins, so pieces of several attempts
are spliced by offset: an overlap is cut, a gap is never passed over. The reader gets whole characters only.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from ssmprov import operations, wire
from ssmprov.errors import Cancelled, SsmprovError

TEXT_WINDOW = 32
"""PARTIALs that may be under way or unread at once."""

FILE_WINDOW = 8
"""CHUNKs of at most 1 MiB that may be under way or unread at once."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the reply, and how many tokens have been written with it (0 where that is not known)."""

    text: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of an exported file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """The broker has taken the request, behind `place` others."""

    place: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Reading the prompt: `done` of `total` tokens."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Want:
    """The worker takes the file's next piece, from byte `offset`: answer with `Core.supply`."""

    offset: int


@dataclass(frozen=True, slots=True)
class Result:
    """The one end of a request. `body` is the text where it was not streamed."""

    result: Raw = field(default_factory=lambda: Raw(b"\xc0"))
    body: bytes = b""
    error: SsmprovError | None = None


Event = Text | Data | Placed | Progress | Want | Result


class Gap(Exception):
    """A piece begins past what has arrived: the request must be sent again with `have`."""


class TooLong(Exception):
    """The reply is larger than the protocol lets a text be."""


@dataclass(slots=True)
class Window:
    """The reader's credit: what was granted, what has arrived of it, and what the reader has not yet taken."""

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
        """The piece `seq` of this attempt has come; one beyond the credit counts for no more than that."""
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
    """An import's file on its way: the next piece goes from byte `offset` as number `seq` + 1."""

    offset: int = 0
    seq: int = 0
    allowed: int = 0
    asked: bool = False
    finished: bool = False


@dataclass(slots=True)
class Exchange:
    """One open request. `kind` tells what becomes of its pieces: text or data for a reader, or collected."""

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
        """Whether a lost connection can be made good by sending it again: half a file cannot."""
        taken = operations.find(self.request.op).file == "in" and not self.upload.finished
        file = self.kind == "data" or taken
        return self.attempt == 0 or not file

    def next_request(self, now: float) -> wire.Request:
        """The REQUEST of a new attempt, which goes on from the text that has arrived; a file begins anew."""
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
        """The broker has the request: the reader of a stream is told its place."""
        streamed = self.kind == "text" and message.attempt == self.attempt
        return [Placed(message.place)] if streamed else []

    def partial(self, message: wire.Partial, payloads: list[bytes]) -> list[Event]:
        """Take a PARTIAL in. Raises Gap, TooLong, or UnicodeDecodeError for what is no UTF-8."""
        if message.attempt != self.attempt:
            return []
        self.window.arrive(message.seq)
        events: list[Event] = [Progress(message.done, message.total)] if message.total else []
        return events + self._pieces(message.offset, b"".join(payloads), message.tokens)

    def chunk(self, message: wire.Chunk, payloads: list[bytes]) -> list[Event]:
        """Take a CHUNK of an exported file in. Raises Gap."""
        if message.attempt != self.attempt or self.kind != "data":
            return []
        self.window.arrive(message.seq)
        return self._pieces(message.offset, b"".join(payloads))

    def final(self, message: wire.Final, payloads: list[bytes]) -> list[Event]:
        """Take a successful FINAL in: the last piece, then the result. Raises as `partial` does."""
        result, text = wire.take_result(message, payloads)
        events = self._pieces(message.offset, text) if self.kind != "data" else []
        self._decoder.decode(b"", final=True)
        return [*events, Result(result, bytes(self._body))]

    def credited(self, message: wire.Credit) -> list[Event]:
        """The worker takes more of an import's file."""
        self.upload.allowed += message.n
        return self._want()

    def supplied(self, offset: int, data: bytes, last: bool) -> tuple[wire.Chunk | None, list[Event]]:
        """The CHUNK for a piece that the reader of the file supplied; None where it is no longer wanted."""
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
