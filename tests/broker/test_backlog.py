"""What a slow peer has left lying is bounded by messages and by bytes."""

from __future__ import annotations

from broker import backlog
from broker.backlog import Backlog


def test_messages_go_out_in_their_order() -> None:
    waiting = Backlog()
    assert not waiting
    for number in range(3):
        assert waiting.add([b"%d" % number])
    for number in range(3):
        assert waiting.first == [b"%d" % number]
        waiting.sent()
    assert not waiting


def test_so_many_and_no_more() -> None:
    waiting = Backlog()
    assert all(waiting.add([b"x"]) for _ in range(backlog.MESSAGES))
    assert not waiting.add([b"x"])


def test_so_large_and_no_larger_until_some_have_gone() -> None:
    waiting = Backlog()
    part = [bytes(2**20)] * 8
    for _ in range(backlog.BYTES // 2**23):
        assert waiting.add(part)
    for _ in range(3):
        waiting.sent()
    for _ in range(3):
        assert waiting.add(part)
    assert not waiting.add(part)
