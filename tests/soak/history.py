"""The history: what every client asked, was answered, and saw on its wire; one append-only JSONL file per client.

A line is written by one `write` to the file, so that a killed client loses at most the line that it was writing.
Times are seconds of the monotonic clock, which all processes of a host share.

    begin   n, link, again, and the order's own keys        a call is made
    end     n, and either result and text, or error         it has ended, for the caller
    sent    link, id, attempt, have                         a REQUEST left (or would have, had there been a connection)
    got     link, id, kind, attempt, seq, offset, text      an ACCEPTED, PARTIAL, CHUNK or FINAL came; or its `code`
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ssmprov.errors import Problem


class Order(msgspec.Struct, omit_defaults=True):
    """One thing to ask of the system, as data: it can be asked again under the same id."""

    id: str
    op: str
    model: str
    context: str = ""
    args: dict[str, Any] = {}
    prompt: str = ""
    how: str = "call"
    pause_ms: int = 0
    cancel_after: int = -1
    cancel_mode: str = ""
    file: str = ""
    ttl_s: float = 40.0


class Recorder:
    """Appends to one client's history. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        os.write(self._fd, b"\n")  # a former life may have ended within a line

    def write(self, event: str, **keys: Any) -> None:
        line = msgspec.json.encode({"e": event, "t": time.monotonic()} | keys) + b"\n"
        with self._lock:
            os.write(self._fd, line)

    def begin(self, n: str, link: str, order: Order, *, again: bool) -> None:
        self.write("begin", n=n, link=link, again=again, order=order)

    def end(self, n: str, result: Any = None, text: str = "", error: Problem | None = None) -> None:
        self.write("end", n=n, **({"error": error} if error else {"result": result, "text": text}))


@dataclass(slots=True)
class Call:
    """One call of one client. `ended` is infinite where no answer ever came; `error` None where it succeeded."""

    n: str
    link: str
    order: Order
    again: bool = False
    began: float = 0.0
    ended: float = math.inf
    result: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    error: Problem | None = None

    @property
    def answered(self) -> bool:
        return self.ended < math.inf

    @property
    def ok(self) -> bool:
        return self.answered and self.error is None


@dataclass(slots=True)
class Frame:
    """What one call's link sent or got for its request id, in order."""

    kind: str  # "sent", "accepted", "partial", "chunk", "final"
    attempt: int = 1
    seq: int = 0
    offset: int = 0
    have: int = 0
    text: bytes = b""
    code: str = ""
    at: float = 0.0


@dataclass(slots=True)
class History:
    """All clients' histories of one run; `frames` are those of each call, by its `n`."""

    calls: list[Call] = field(default_factory=list)
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    torn: int = 0

    def by_id(self) -> dict[str, list[Call]]:
        """The calls that were made under each request id, in order."""
        found: dict[str, list[Call]] = {}
        for call in sorted(self.calls, key=lambda call: call.began):
            found.setdefault(call.order.id, []).append(call)
        return found


def load(paths: Iterable[Path]) -> History:
    """Read the histories of a run. A line that its client could not finish is counted and passed over."""
    history = History()
    for path in paths:
        calls: dict[str, Call] = {}
        latest: dict[tuple[str, str], str] = {}  # of a link and an id
        for event in _events(path, history):
            _take(history, calls, latest, event)
        history.calls += calls.values()
    return history


def _events(path: Path, history: History) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        try:
            yield msgspec.json.decode(line)
        except msgspec.DecodeError:
            history.torn += 1


def _take(history: History, calls: dict[str, Call], latest: dict[tuple[str, str], str], event: dict[str, Any]) -> None:
    match event["e"]:
        case "begin":
            order = msgspec.convert(event["order"], Order)
            calls[event["n"]] = Call(event["n"], event["link"], order, event["again"], event["t"])
            latest[event["link"], order.id] = event["n"]
        case "end":
            call = calls[event["n"]]
            call.ended = event["t"]
            if "error" in event:
                call.error = msgspec.convert(event["error"], Problem)
            else:
                call.result, call.text = event["result"] or {}, event["text"]
        case kind:
            frame = Frame(
                "sent" if kind == "sent" else event["kind"],
                event["attempt"],
                event.get("seq", 0),
                event.get("offset", 0),
                event.get("have", 0),
                bytes.fromhex(event.get("text", "")),
                event.get("code", ""),
                event["t"],
            )
            if n := latest.get((event["link"], event["id"])):
                history.frames.setdefault(n, []).append(frame)
