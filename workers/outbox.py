"""What a worker still has to send: the streams of running turns, and the answers that wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ssmprov import wire
from ssmprov.errors import WorkerLost, problem_of
from workers.job import Stream


@dataclass(slots=True)
class _Answer:
    final: wire.Final
    payloads: list[bytes]


class Outbox:
    """Used by the socket thread alone. `send` sends a message now or not at all, and returns whether it did."""

    def __init__(self, send: Callable[[wire.Message, Sequence[bytes]], bool], streams: dict[bytes, Stream]) -> None:
        self._send = send
        self._streams = streams
        self._answers: list[_Answer] = []

    @property
    def waiting(self) -> int:
        return len(self._answers)

    def add(self, final: wire.Final, payloads: list[bytes]) -> None:
        """Queue an answer. Its payloads hold the whole text, even if part of it was streamed."""
        self._answers.append(_Answer(final, payloads))

    def flush(self, epoch: int) -> None:
        """Send everything there is; keep what the broker has no room for until next time."""
        for stream in self._streams.values():
            while True:
                before = stream.mark()
                partial = stream.partial(epoch)
                if partial is None:
                    break
                if not self._send(*partial):
                    stream.back(before)
                    return
        self._answers = [answer for answer in self._answers if not self._sent(answer, epoch)]

    def _sent(self, answer: _Answer, epoch: int) -> bool:
        """Send an answer with the part of the text that its reader does not have yet; this ends the stream."""
        final, payloads = answer.final, answer.payloads
        stream = self._streams.get(final.id)
        final.epoch = epoch
        if stream is not None:
            final.attempt, final.seq = stream.attempt, stream.seq
            n = final.result_frames
            text = b"".join(payloads[n:])
            final.offset = min(stream.offset, len(text)) if final.error is None else stream.offset
            payloads = [*payloads[:n], *wire.split_text(text[final.offset :])]
            if final.error is None and not text.startswith(stream.text[: stream.offset]):
                final, payloads = _another_reply(final, stream.offset), []
        try:
            sent = self._send(final, payloads)
        except wire.WireError as error:  # no message can hold this answer, but that must not end the worker
            small = wire.Final(final.id, final.attempt, final.epoch, final.seq, final.offset, problem_of(error))
            sent = self._send(small, ())
        if sent:
            self._streams.pop(final.id, None)
        return sent


def _another_reply(final: wire.Final, offset: int) -> wire.Final:
    """The end of a turn for which another worker, before a broker's restart, committed a different reply.

    What was streamed here plus the rest of what was committed there would be a text that no state has read.
    """
    lost = WorkerLost(
        "the turn was committed with a different reply from the one that was streamed: load its context to see it",
        committed=True,
    )
    return wire.Final(final.id, final.attempt, final.epoch, final.seq, offset, problem_of(lost))
