"""A call: one operation, before it becomes a REQUEST."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

import msgspec
from msgspec import Raw

from clients.exchange import Result
from ssmprov import operations, wire
from ssmprov.errors import BadRequest

TTL_S = 600.0

T = TypeVar("T")
Answer = tuple[Raw, bytes]
"""The raw result of a call, and its text."""

Plan = Generator["Call", Answer, T]
"""The body of a method: it yields calls, receives their answers or errors, and returns the method's value."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `kind` says how its text arrives: collected, as pieces of text, or as data of a file."""

    op: str
    args: msgspec.Struct
    model: str = ""
    context: str = ""
    _: KW_ONLY
    payload: bytes = b""
    kind: str = "collect"
    ttl_s: float = TTL_S
    id: bytes = field(default_factory=wire.new_id)

    def request(self) -> tuple[wire.Request, list[bytes]]:
        """The REQUEST and its payloads, checked here. Raises BadRequest if no broker would accept them."""
        ttl_ms = round(self.ttl_s * 1000)
        if not 1 <= ttl_ms <= wire.MAX_TTL_MS:
            raise BadRequest(f"ttl_s must be between 0.001 and {wire.MAX_TTL_MS // 1000} seconds, not {self.ttl_s:g}")
        if len(self.id) != 16:
            raise BadRequest(f"a request id must have 16 bytes, not {len(self.id)}")
        request = wire.Request(self.id, self.op, self.model, self.context, ttl_ms=ttl_ms, args=wire.pack(self.args))
        payloads = wire.split_text(self.payload)
        checked, _ = wire.decode(wire.encode(request, payloads))
        assert isinstance(checked, wire.Request)
        operations.decode_args(checked)
        return request, payloads


def encode_text(text: str) -> bytes:
    """A prompt as bytes. Raises BadRequest if it cannot be encoded as UTF-8."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRequest(f"the text is not valid UTF-8: it has a lone surrogate at character {error.start}") from None


def answer_of(end: Result) -> Answer:
    """The answer of a call that has ended. Raises its error."""
    if end.error is not None:
        raise end.error
    return end.result, end.body
