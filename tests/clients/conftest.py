"""A small broker for the faces' tests: a real ROUTER socket that answers by a script, in a thread."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zmq

from ssmprov import operations, ops, wire
from ssmprov.errors import Problem


@dataclass
class Turn:
    """A turn under way: its pieces left to send, and the credit to send them."""

    route: bytes
    request: wire.Request
    pieces: list[bytes]
    credit: int
    seq: int = 0
    offset: int = 0


@dataclass
class Router:
    """Answers like a broker with workers. `pieces` is what a turn writes; `hold` keeps turns open until cancelled."""

    folder: Path
    models: tuple[str, ...] = ("m",)
    contexts: dict[str, str] = field(default_factory=dict)
    pieces: list[str] = field(default_factory=lambda: ["Hé", "llo", " 🌍"])
    hold: bool = False
    mute: bool = False
    busy: int = 0
    file: bytes = bytes(range(256)) * 10_000
    seen: list[wire.Message] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoint = f"ipc://{self.folder}/b.sock"
        self.imported = bytearray()
        self.turns: dict[bytes, Turn] = {}
        self.routes: set[bytes] = set()
        self.begin()

    def begin(self) -> None:
        self._stop = threading.Event()
        self._bound = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._bound.wait(60)

    def end(self) -> None:
        """As if killed: nobody is told."""
        self._stop.set()
        self._thread.join(60)
        self.routes.clear()

    def requests(self, op: str) -> list[wire.Request]:
        return [message for message in self.seen if isinstance(message, wire.Request) and message.op == op]

    def until(self, kind: type[wire.Message], count: int = 1) -> None:
        """Wait until so many messages of a kind have come."""
        for _ in range(5000):
            if sum(isinstance(message, kind) for message in list(self.seen)) >= count:
                return
            self._stop.wait(0.001)
        raise AssertionError(f"no {count} {kind.__name__} came: {self.seen}")

    def _run(self) -> None:
        context = zmq.Context()
        self.router = context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(self.endpoint)
        self._bound.set()
        pulse_at = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= pulse_at and not self.mute:
                pulse_at = time.monotonic() + 0.2
                for route in self.routes:
                    self._send(route, wire.Pulse())
            if self.router.poll(5):
                route, *frames = self.router.recv_multipart()
                self._hear(route, *wire.decode(frames))
            for turn in list(self.turns.values()):
                self._write(turn)
        self.router.close(linger=0)
        context.term()

    def _send(self, route: bytes, message: wire.Message, payloads: list[bytes] | None = None) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self.router.send_multipart([route, *wire.encode(message, payloads or [])])

    def _answer(self, route: bytes, request: wire.Request, result: object, text: bytes = b"") -> None:
        final, payloads = wire.final(wire.Final(request.id, request.attempt), result, text)
        self._send(route, final, payloads)

    def _hear(self, route: bytes, message: wire.Message, payloads: list[bytes]) -> None:
        if self.mute:
            return
        self.seen.append(message)
        if isinstance(message, wire.Hello):
            self.routes.add(route)
            self._send(route, wire.Hello(b"B" * 16, "broker"))
        elif route not in self.routes:
            self._send(route, wire.Bye("say HELLO first", code="hello_first"))
        elif isinstance(message, wire.Request):
            self._asked(route, message, payloads)
        elif isinstance(message, wire.Credit) and message.id in self.turns:
            self.turns[message.id].credit += message.n
        elif isinstance(message, wire.Chunk):
            self.imported += payloads[0]
            if message.last:
                self._answer(
                    route,
                    self.requests("ckpt.import")[-1],
                    ops.Row(name="new", object="ab" * 32, bytes=len(self.imported)),
                )
            else:
                self._send(route, wire.Credit(message.id, 1))
        elif isinstance(message, wire.Cancel) and message.id in self.turns:
            turn = self.turns.pop(message.id)
            if message.mode == "keep":
                self._end(turn, "cancelled")
            else:
                error = Problem("cancelled", "cancelled by its client")
                self._send(route, wire.Final(message.id, turn.request.attempt, offset=turn.offset, error=error))

    def _asked(self, route: bytes, request: wire.Request, payloads: list[bytes]) -> None:
        self._send(route, wire.Accepted(request.id, request.attempt))
        args = operations.decode_args(request)
        name = request.context
        known = f"{request.model}:{name}" in self.contexts
        if self.busy > 0:
            self.busy -= 1
            error = Problem("busy", "the queue is full", retry_ms=20)
            self._send(route, wire.Final(request.id, request.attempt, error=error))
        elif request.op == "status":
            broker = ops.BrokerStatus(
                pid=1,
                uptime_s=1.0,
                clients=1,
                queued=0,
                running=0,
                accepted=0,
                answered=0,
                refused=0,
                requests_per_s=0.0,
                partials_per_s=0.0,
                draining=False,
            )
            self._answer(
                route,
                request,
                ops.StatusResult(
                    broker=broker, models=[ops.ModelStatus(name=name) for name in self.models], workers=[]
                ),
            )
        elif request.op.startswith("ckpt.") and name and not known:
            self._send(route, wire.Final(request.id, request.attempt, error=Problem("not_found", f"no {name}")))
        elif request.op == "ckpt.show":
            text = self.contexts[f"{request.model}:{name}"].encode()
            shown = ops.Shown(row=ops.Row(name=name, object="ab" * 32, model=request.model, text_bytes=len(text)))
            self._answer(route, request, shown, text[args.offset : args.offset + 10] if args.text else b"")
        elif request.op == "ckpt.export":
            self.turns[request.id] = Turn(route, request, _split(self.file[request.have :]), request.credit)
        elif request.op == "ckpt.import":
            self.imported.clear()
            self._send(route, wire.Credit(request.id, 2))
        elif request.op == "ckpt.fork":
            self._answer(
                route, request, ops.ForkResult("ab" * 32, args.targets, dict(zip(args.targets, args.on, strict=True)))
            )
        elif request.op == "turn":
            self.prompts.append(b"".join(payloads).decode())
            left = b"".join(map(str.encode, self.pieces))[request.have :] if request.have else b""
            pieces = [left] if request.have else [piece.encode() for piece in self.pieces]
            self.turns[request.id] = Turn(route, request, pieces, request.credit, offset=request.have)
        else:
            self._send(route, wire.Final(request.id, request.attempt, error=Problem("unsupported", request.op)))

    def _write(self, turn: Turn) -> None:
        while turn.pieces and turn.credit > 0:
            piece = turn.pieces.pop(0)
            turn.seq, turn.credit = turn.seq + 1, turn.credit - 1
            kind = wire.Chunk if turn.request.op == "ckpt.export" else wire.Partial
            self._send(
                turn.route,
                kind(id=turn.request.id, seq=turn.seq, attempt=turn.request.attempt, offset=turn.offset),
                [piece],
            )
            turn.offset += len(piece)
        streamed = turn.request.credit > 0
        if not self.hold and (not turn.pieces or not streamed):
            del self.turns[turn.request.id]
            self._end(turn, "end")

    def _end(self, turn: Turn, stop: str) -> None:
        result: object = ops.TurnResult(stop=stop)
        if turn.request.op == "ckpt.export":
            result = ops.Exported(hashlib.sha256(self.file).hexdigest(), len(self.file))
        final = wire.Final(turn.request.id, turn.request.attempt, offset=turn.offset)
        self._send(turn.route, *wire.final(final, result, b"".join(turn.pieces)))


def _split(data: bytes) -> list[bytes]:
    return [data[i : i + 100_000] for i in range(0, len(data), 100_000)]


@pytest.fixture
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    found = Router(tmp_path_factory.mktemp("b"))
    yield found
    found.end()
