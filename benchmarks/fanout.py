"""Many streams at once through the broker, from a producer whose tokens cost nothing.

The same producer answers raw readers directly, behind zmq.proxy, and as a worker of the broker. The worker's streams
are also read by the threads of one blocking client. Tokens come at a fixed rate, faster than they can be read. Tokens
without credit are collected, so pieces get larger if something cannot keep up. Every byte is checked.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import zmq

from benchmarks.measure import Curve, Figure, Plan, at_least, at_most, cpu_s, figure, interleave
from benchmarks.producer import TOKEN_BYTES, text_of
from benchmarks.round_trip import Raw
from benchmarks.serving import Companion, Serving
from clients import Client
from clients.exchange import TEXT_WINDOW
from ssmprov import ops, sockets, wire

GROUP = "streams"
MODEL = "producer"
STREAMS = 32
READERS = 4
"""Connections that share the streams."""

RATE = 8000
"""Tokens per second offered to each stream."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens per second, PARTIALs in all, and CPU seconds of the process in between."""

    rate: float
    partials: int
    cpu: float


@dataclass(slots=True)
class Open:
    """A stream that is being read."""

    seq: int = 0
    have: int = 0
    unread: int = 0

    def take(self, seq: int, offset: int, piece: bytes, text: bytes) -> None:
        """Take the next piece of `text`. Raises RuntimeError if it is not the expected piece."""
        if (seq, offset) != (self.seq + 1, self.have) or not text.startswith(piece, offset):
            raise RuntimeError("a stream has a gap or the wrong text")
        self.seq, self.have = seq, offset + len(piece)
        self.unread += 1


class Reader(Raw):
    """One connection that reads several streams and checks every byte."""

    def begin(self, streams: int, tokens: int) -> None:
        self.text = text_of(tokens)
        self.open: dict[bytes, Open] = {}
        self.partials = 0
        for _ in range(streams):
            args = wire.pack(ops.Turn(max_tokens=tokens, stream=True))
            request = wire.Request(wire.new_id(), "turn", MODEL, credit=TEXT_WINDOW, args=args)
            self.open[request.id] = Open()
            self.socket.send_multipart(wire.encode(request, [b"x"]))

    def take(self) -> None:
        """Read everything that has arrived. Raises RuntimeError for an error, a gap or a wrong byte."""
        while self.open and sockets.has_more(self.socket):
            message, payloads = wire.decode(self.socket.recv_multipart())
            if isinstance(message, wire.Partial):
                self.partials += 1
                self._piece(message.id, message.seq, message.offset, payloads)
            elif isinstance(message, wire.Final):
                if message.error is not None:
                    raise RuntimeError(message.error.message)
                self._piece(message.id, message.seq + 1, message.offset, payloads)
                if self.open.pop(message.id).have != len(self.text):
                    raise RuntimeError("a stream ended early")

    def _piece(self, request_id: bytes, seq: int, offset: int, payloads: list[bytes]) -> None:
        stream = self.open[request_id]
        stream.take(seq, offset, b"".join(payloads), self.text)
        if stream.unread == TEXT_WINDOW // 2:
            self.socket.send_multipart(wire.encode(wire.Credit(request_id, stream.unread)))
            stream.unread = 0


def measure(plan: Plan) -> list[Figure | Curve]:
    plan.say(f"streams: {STREAMS} from a producer that costs nothing")
    script = plan.scratch / "streams.json"
    script.write_text(json.dumps({"replies": []}), encoding="utf-8")
    table = {"name": "scripted", "runtime": "scripted", "path": str(script), "checkpoints": "store"}
    with ExitStack() as stack:
        serving = stack.enter_context(Serving(plan.scratch / "streams", table))
        taken = interleave(plan.rounds, _sides(stack, serving, plan.size(1000, 16_000)))
    return _figures(taken)


def _sides(stack: ExitStack, serving: Serving, tokens: int) -> dict[str, Callable[[], Taken]]:
    context = stack.enter_context(zmq.Context())
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="ssmprov-"))
    direct, front, back = (f"ipc://{directory}/{name}" for name in ("direct", "front", "back"))

    def start(*arguments: str) -> Companion:
        return stack.enter_context(closing(Companion(*arguments)))

    def readers(endpoint: str) -> list[Reader]:
        return [stack.enter_context(closing(Reader(context, endpoint))) for _ in range(READERS)]

    producer = start("producer", "direct", direct, str(RATE))
    proxy = start("peers", "proxy", front, back)
    start("producer", "behind", back, str(RATE))
    start("producer", "worker", serving.endpoint, str(RATE), MODEL)
    served = readers(serving.endpoint)
    for reader in served:
        reader.greet()
        reader.wait_for(MODEL)
    proxied = readers(front)
    client = stack.enter_context(Client(serving.endpoint))
    broker = serving.pids["broker"]
    return {
        "direct": partial(_read, readers(direct), STREAMS, tokens, producer.pid),
        "zmq.proxy": partial(_read, proxied, STREAMS, tokens, proxy.pid),
        "broker": partial(_read, served, STREAMS, tokens, broker),
        "zmq.proxy, alone": partial(_read, proxied[:1], 1, tokens, proxy.pid),
        "broker, alone": partial(_read, served[:1], 1, tokens, broker),
        "client": partial(_read_by, client, tokens, broker),
    }


def _read(readers: list[Reader], streams: int, tokens: int, between: int) -> Taken:
    poller = zmq.Poller()
    for reader in readers:
        poller.register(reader.socket, zmq.POLLIN)
    began, used = perf_counter(), cpu_s(between)
    for reader in readers:
        reader.begin(streams // len(readers), tokens)
    while any(reader.open for reader in readers):
        poller.poll()
        for reader in readers:
            reader.take()
    seconds = perf_counter() - began
    partials = sum(reader.partials for reader in readers)
    return Taken(streams * tokens / seconds, partials, cpu_s(between) - used)


def _read_by(client: Client, tokens: int, between: int) -> Taken:
    texts = [""] * STREAMS
    pieces = [0] * STREAMS

    def run(row: int) -> None:
        with client.stream("x", model=MODEL, max_tokens=tokens) as stream:
            for piece in stream:
                texts[row] += piece
                pieces[row] += 1

    threads = [threading.Thread(target=run, args=(row,)) for row in range(STREAMS)]
    began, used = perf_counter(), cpu_s(between)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    if any(text.encode() != text_of(tokens) for text in texts):
        raise RuntimeError("a stream of the client has the wrong text")
    return Taken(STREAMS * tokens / seconds, sum(pieces), cpu_s(between) - used)


def _figures(taken: dict[str, list[Taken]]) -> list[Figure | Curve]:
    def rates(side: str) -> list[float]:
        return [one.rate for one in taken[side]]

    def cpu(side: str) -> list[float]:
        return [one.cpu / one.partials * 1e6 for one in taken[side]]

    def whole(what: str, side: str) -> Figure:
        sides = (side, rates(side)), ("direct", rates("direct"))
        offered = f"{STREAMS * RATE:,} tokens/s of {TOKEN_BYTES} bytes come"
        return figure(GROUP, what, "tokens/s", *sides, target=at_least(150_000, of="measured"), limit=offered)

    def forwarded(what: str, alone: str) -> Figure:
        sides = ("broker", cpu(f"broker{alone}")), ("zmq.proxy", cpu(f"zmq.proxy{alone}"))
        return figure(GROUP, f"CPU per forwarded PARTIAL, {what}", "µs CPU", *sides, target=at_most(3))

    return [
        whole(f"{STREAMS} streams through the broker", "broker"),
        whole(f"{STREAMS} streams, one blocking client", "client"),
        forwarded("of one stream", ", alone"),
        forwarded(f"of {STREAMS} at a time", ""),
    ]
