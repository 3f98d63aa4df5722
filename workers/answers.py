"""Answers: how a worker's threads send the one terminal answer of a request, fresh or from a durable outcome."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from ssmprov import wire
from ssmprov.errors import Problem, problem_of
from workers.checkpoints import RequestKey

MARGIN_S = 3600.0
"""An outcome outlives its request's time to live by so much."""

Sender = Callable[[wire.Request, wire.Final, Sequence[bytes]], None]


class Outcome(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A durable answer, as it stands in the catalogue and is given again to a resent request."""

    result: Raw = Raw(b"\xc0")
    error: Problem | None = None
    text: bytes = b""
    hot: list[str] = []
    pins: dict[str, str] = {}

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


class Answers:
    """Sends answers in the name of one worker. Any thread may use it."""

    def __init__(self, worker: str, send: Sender) -> None:
        self.worker = worker
        self._send = send

    def fail(self, request: wire.Request, error: BaseException) -> None:
        self._send(request, wire.Final(request.id, error=problem_of(error, worker=self.worker)), [])

    def reply(
        self,
        request: wire.Request,
        result: Any,
        text: bytes = b"",
        *,
        hot: Sequence[str] = (),
        pins: dict[str, str] | None = None,
    ) -> None:
        """Answer with a result and the whole of a text; `hot` and `pins` are the broker's to know."""
        final, payloads = wire.final(wire.Final(request.id, hot=list(hot), pins=pins or {}), result, text)
        self._send(request, final, payloads)

    def repeat(self, request: wire.Request, answer: bytes) -> None:
        """Answer from a durable outcome, be it fresh or one of an earlier attempt."""
        outcome = msgspec.msgpack.decode(answer, type=Outcome)
        if outcome.error is not None:
            self._send(request, wire.Final(request.id, error=outcome.error), [])
        else:
            self.reply(request, outcome.result, outcome.text, hot=outcome.hot, pins=outcome.pins)


def key_of(request: wire.Request) -> RequestKey:
    """The request as the store knows it."""
    return RequestKey(request.id, request.ttl_ms / 1000 + MARGIN_S)


def milliseconds(start: float, end: float) -> float:
    return round(max(0.0, end - start) * 1000, 3)
