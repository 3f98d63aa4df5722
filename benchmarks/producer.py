"""A worker whose tokens cost nothing: they come at a fixed rate, and each step sends the tokens collected so far.

direct FRONT RATE          answers clients itself, as a ROUTER
behind BACK RATE           answers the requests that a zmq.proxy passes on
worker FRONT RATE MODEL    registers with a broker

RATE is in tokens per second for each stream. A PARTIAL is sent when there is credit for it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from socket import gethostname
from time import monotonic

import zmq

from ssmprov import ops, sockets, wire
from ssmprov.names import worker_name
from ssmprov.process import die_with_parent

STEP_S = 0.002
PULSE_S = 0.2
SLOTS = 128
PERIOD = 1000

TOKENS = b"".join(b"%03d " % number for number in range(PERIOD))
TOKEN_BYTES = len(TOKENS) // PERIOD


def text_of(tokens: int) -> bytes:
    """The text of this many tokens."""
    return (TOKENS * (tokens // PERIOD + 1))[: tokens * TOKEN_BYTES]


@dataclass(slots=True, kw_only=True)
class Stream:
    """One turn: its text, when it began, and how much of it was sent."""

    envelope: list[bytes]
    request: wire.Request
    text: bytes
    tokens: int
    began: float
    credit: int
    seq: int = 0
    offset: int = 0


class Producer:
    """Answers turns on a DEALER or ROUTER socket, whose messages may have an envelope."""

    def __init__(self, socket: zmq.Socket[bytes], rate: float, *, enveloped: bool) -> None:
        self._socket = socket
        self._rate = rate
        self._enveloped = enveloped
        self._streams: dict[bytes, Stream] = {}
        self._outbox: list[list[bytes]] = []
        self.epoch = 0

    def serve(self) -> None:
        step_at = pulse_at = monotonic()
        while True:
            due = step_at if self._streams else pulse_at
            if self._socket.poll(max(0, int((due - monotonic()) * 1000))):
                self._receive()
            now = monotonic()
            if now >= step_at:
                step_at = now + STEP_S
                for stream in list(self._streams.values()):
                    self._write(stream, now)
                self._flush()
            if now >= pulse_at:
                pulse_at = now + PULSE_S
                if self.epoch:
                    self._send([], wire.Pulse())
                    self._flush()

    def _receive(self) -> None:
        while sockets.has_more(self._socket):
            frames = self._socket.recv_multipart()
            envelope, frames = (frames[:1], frames[1:]) if self._enveloped else ([], frames)
            message, _ = wire.decode(frames)
            if isinstance(message, wire.Register):
                self.epoch = message.epoch
            elif isinstance(message, wire.Request):
                tokens = wire.unpack(message.args, ops.Turn).max_tokens or 0
                self._streams[message.id] = Stream(
                    envelope=envelope,
                    request=message,
                    text=text_of(tokens),
                    tokens=tokens,
                    began=monotonic(),
                    credit=message.credit,
                )
            elif isinstance(message, wire.Credit) and message.id in self._streams:
                self._streams[message.id].credit += message.n

    def _write(self, stream: Stream, now: float) -> None:
        tokens = min(stream.tokens, int((now - stream.began) * self._rate))
        end = tokens * TOKEN_BYTES
        fresh = stream.text[stream.offset : end]
        request = stream.request
        if tokens == stream.tokens:
            final = wire.Final(request.id, request.attempt, self.epoch, stream.seq, stream.offset)
            result = ops.TurnResult(stop="limit", reply_tokens=tokens)
            self._send(stream.envelope, *wire.final(final, result, fresh))
            del self._streams[request.id]
        elif fresh and stream.credit:
            stream.credit -= 1
            stream.seq += 1
            partial = wire.Partial(request.id, stream.seq, request.attempt, self.epoch, stream.offset, tokens)
            self._send(stream.envelope, partial, [fresh])
            stream.offset = end

    def _send(self, envelope: list[bytes], message: wire.Message, payloads: list[bytes] | None = None) -> None:
        self._outbox.append([*envelope, *wire.encode(message, payloads or [])])

    def _flush(self) -> None:
        """Send all messages of a step together."""
        for frames in self._outbox:
            self._socket.send_multipart(frames)
        self._outbox.clear()


def main(kind: str, endpoint: str, rate: str, model: str = "") -> None:
    die_with_parent()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.ROUTER if kind == "direct" else zmq.DEALER)
    (socket.bind if kind == "direct" else socket.connect)(endpoint)
    if kind == "worker":
        name = worker_name(model, 0)
        offer = wire.Register(
            worker=name,
            model=wire.ModelCard(name=model, runtime="none", fingerprint="0" * 64),
            store="none",
            slots=SLOTS,
            pid=os.getpid(),
            host=gethostname(),
        )
        socket.send_multipart(wire.encode(wire.Hello(wire.new_id(), "worker", agent=name)))
        socket.send_multipart(wire.encode(offer))
    print("true", flush=True)
    Producer(socket, float(rate), enveloped=kind != "worker").serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
