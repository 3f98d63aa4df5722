"""The one answer of a request holds what its reader has not been sent, and never the rest of another text."""

from __future__ import annotations

from collections.abc import Sequence

from ssmprov import wire
from workers.job import Stream
from workers.outbox import Outbox

ID = b"i" * 16


class Line:
    """Takes what the outbox sends, as long as it is free."""

    def __init__(self) -> None:
        self.free = True
        self.sent: list[tuple[wire.Message, bytes]] = []

    def __call__(self, message: wire.Message, payloads: Sequence[bytes]) -> bool:
        if self.free:
            self.sent.append((message, b"".join(payloads)))
        return self.free


def answered(streamed: bytes, text: bytes, *, free: bool = True) -> tuple[Line, Outbox]:
    """A reader was streamed the one text, and then the turn is answered with the other."""
    line = Line()
    stream = Stream(request=wire.Request(ID, "turn"), wanted=True, credit=1)
    outbox = Outbox(line, {ID: stream})
    stream.text += streamed
    outbox.flush(epoch=3)
    line.free = free
    outbox.add(*wire.final(wire.Final(ID), {"stop": "end"}, text))
    outbox.flush(epoch=3)
    return line, outbox


def test_the_answer_brings_what_was_not_streamed() -> None:
    line, outbox = answered(b"one ", b"one two")
    final, rest = line.sent[-1]
    assert isinstance(final, wire.Final)
    assert (final.error, final.offset, final.seq, final.epoch, rest) == (None, 4, 1, 3, b"two")
    assert outbox.waiting == 0


def test_the_rest_of_another_reply_is_not_joined_to_what_was_streamed() -> None:
    line, _ = answered(b"uno ", b"one two")
    final, rest = line.sent[-1]
    assert isinstance(final, wire.Final)
    assert final.error is not None
    assert (final.error.code, final.error.details["committed"], rest) == ("worker_lost", True, b"")


def test_nor_is_a_shorter_one_taken_for_the_whole() -> None:
    line, _ = answered(b"one two", b"one")
    final, _ = line.sent[-1]
    assert isinstance(final, wire.Final)
    assert final.error is not None


def test_an_answer_waits_until_there_is_room() -> None:
    line, outbox = answered(b"one ", b"one two", free=False)
    assert (len(line.sent), outbox.waiting) == (1, 1)
    line.free = True
    outbox.flush(epoch=4)
    assert (len(line.sent), outbox.waiting) == (2, 0)
