"""How a worker's threads send the final answer of a request, whether it is new or was stored earlier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from ssmprov import wire
from ssmprov.causes import told
from ssmprov.errors import Problem
from workers.checkpoints import RequestKey

MARGIN_S = 3600.0
"""A stored answer outlives the time to live of its request by this much."""

Sender = Callable[[wire.Request, wire.Final, Sequence[bytes]], None]


class Outcome(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A durable answer, as the catalogue stores it. A request that is sent again gets the same answer."""

    result: Raw = Raw(b"\xc0")
    error: Problem | None = None
    text: bytes = b""
    hot: list[str] = []
    pins: dict[str, str] = {}

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


class Answers:
    """Sends answers under the name of one worker. Any thread may use it."""

    def __init__(self, worker: str, send: Sender) -> None:
        self.worker = worker
        self._send = send

    def fail(self, request: wire.Request, error: BaseException) -> None:
        self._send(request, wire.Final(request.id, error=told(error, worker=self.worker)), [])

    def reply(
        self,
        request: wire.Request,
        result: Any,
        text: bytes = b"",
        *,
        hot: Sequence[str] = (),
        pins: dict[str, str] | None = None,
    ) -> None:
        """Answer with a result and the whole text; `hot` and `pins` are for the broker."""
        final, payloads = wire.final(wire.Final(request.id, hot=list(hot), pins=pins or {}), result, text)
        self._send(request, final, payloads)

    def repeat(self, request: wire.Request, answer: bytes) -> None:
        """Send a stored answer, from this attempt or an earlier one."""
        outcome = msgspec.msgpack.decode(answer, type=Outcome)
        if outcome.error is not None:
            self._send(request, wire.Final(request.id, error=outcome.error), [])
        else:
            self.reply(request, outcome.result, outcome.text, hot=outcome.hot, pins=outcome.pins)


def key_of(request: wire.Request) -> RequestKey:
    """The key by which the store knows the request."""
    return RequestKey(request.id, request.ttl_ms / 1000 + MARGIN_S)


def milliseconds(start: float, end: float) -> float:
    return round(max(0.0, end - start) * 1000, 3)
