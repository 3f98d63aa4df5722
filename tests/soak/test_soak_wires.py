"""The checker of the wire accepts what a broker may send, and sees a gap, a hole, an overlap, a second answer."""

from __future__ import annotations

import pytest

from soak import wires
from soak.history import Call, Frame, History, Order
from ssmprov.errors import Problem

TURN = Order("ab" * 16, "turn", "talk", "a", {"save": "a"})


def sent(attempt: int = 1, have: int = 0) -> Frame:
    return Frame("sent", attempt, have=have)


def partial(seq: int, offset: int, text: bytes = b"abc", attempt: int = 1) -> Frame:
    return Frame("partial", attempt, seq, offset, text=text)


def final(seq: int, offset: int, text: bytes = b"", attempt: int = 1, code: str = "") -> Frame:
    return Frame("final", attempt, seq, offset, text=text, code=code)


def faults(*frames: Frame, text: str = "abcdef", error: Problem | None = None, order: Order = TURN) -> list[str]:
    call = Call("c0.0.1", "c0.0.1", order, ended=1.0, text=text, error=error)
    return wires.check(History([call], {call.n: list(frames)}))


ACCEPTED = Frame("accepted")
GOOD = {
    "streamed": [sent(), ACCEPTED, partial(1, 0), partial(2, 3, b"def"), final(2, 6)],
    "the answer brings the rest": [sent(), ACCEPTED, partial(1, 0), final(1, 3, b"def")],
    "not streamed": [sent(), ACCEPTED, final(0, 0, b"abcdef")],
    "taken up again where it was": [
        sent(), ACCEPTED, partial(1, 0), sent(2, 3), Frame("accepted", 2), partial(1, 3, b"de", 2),
        final(1, 5, b"f", 2),
    ],
    "taken up again by a broker that knows less": [sent(), partial(1, 0), sent(2, 3), partial(1, 0, b"abcdef", 2)],
    "a piece of an attempt that is over": [
        sent(), partial(1, 0), sent(2, 3), partial(5, 4, b"ef"), partial(1, 3, b"def", 2), final(1, 6, b"", 2),
    ],
    "progress of the prompt": [sent(), partial(1, 0, b""), partial(2, 0, b""), partial(3, 0), final(3, 3, b"def")],
}  # fmt: skip
BAD = {
    "a PARTIAL is missing": ([sent(), partial(1, 0), partial(3, 3, b"def")], "has the number 3"),
    "a PARTIAL came twice": ([sent(), partial(1, 0), partial(1, 0)], "has the number 1"),
    "a hole in the text": ([sent(), partial(1, 0), partial(2, 4, b"ef")], "begins at byte 4, where 3 is due"),
    "an overlap": ([sent(), partial(1, 0), partial(2, 2, b"cdef")], "begins at byte 2, where 3 is due"),
    "a hole before the answer": ([sent(), partial(1, 0), final(1, 5, b"f")], "begins at byte 5"),
    "the answer counts others": ([sent(), partial(1, 0), final(2, 3, b"def")], "counts 2 pieces, and 1 came"),
    "two answers": ([sent(), final(0, 0, b"abcdef"), final(0, 0, b"abcdef")], "after its answer"),
    "an answer and an error": ([sent(), final(0, 0, b"abcdef"), final(0, 0, code="worker_lost")], "after its answer"),
    "two answers of an attempt that is over": (
        [sent(), sent(2), final(0, 0, b"abcdef"), final(0, 0, b"abcdef")],
        "after its answer",
    ),
    "a piece after the answer": ([sent(), final(0, 0, b"abcdef"), partial(1, 6)], "after its answer"),
    "an attempt that nobody made": ([sent(), partial(1, 0, attempt=2)], "which was never made"),
    "another text at the second attempt": ([sent(), partial(1, 0), sent(2), partial(1, 0, b"xbc", 2)], "otherwise"),
    "streamed text that the answer does not hold": ([sent(), partial(1, 0, b"abX"), final(1, 3, b"def")], "not what"),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_a_broker_may_send_is_accepted(name: str) -> None:
    assert faults(*GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_what_it_may_not_send_is_seen(name: str) -> None:
    frames, says = BAD[name]
    assert any(says in fault for fault in faults(*frames))


def test_the_pieces_of_a_file_are_counted_too() -> None:
    export = Order("ab" * 16, "ckpt.export", "talk", "a")
    good = [sent(), Frame("chunk", 1, 1), Frame("chunk", 1, 2), final(2, 0)]
    assert faults(*good, order=export, text="") == []
    assert faults(good[0], good[2], order=export) != []


def test_a_call_that_was_accepted_and_never_answered_is_seen() -> None:
    late = Problem("timeout", "the request's time ran out and the broker did not say how it ended")
    call = Call("c0.0.1", "c0.0.1", TURN, ended=60.0, error=late)
    taken = [Frame("sent", at=1.0), Frame("accepted", at=1.0)]
    assert wires.unanswered(History([call], {call.n: taken})) != []
    assert wires.unanswered(History([call], {call.n: taken[:1]})) == []
    again = [*taken, Frame("sent", 2, at=55.0), Frame("accepted", 2, at=55.0)]
    assert wires.unanswered(History([call], {call.n: again})) == [], "that broker has hardly begun"
