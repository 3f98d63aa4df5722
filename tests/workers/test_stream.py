"""A reply's way to its reader: what was sent, what gathers without credit, and how a broken stream goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssmprov import wire
from workers.job import Stream

EPOCH = 4


def stream(*, wanted: bool = True, credit: int = 0) -> Stream:
    return Stream(request=wire.Request(b"i" * 16, "turn"), wanted=wanted, credit=credit)


def sent(held: Stream) -> list[tuple[wire.Partial, bytes]]:
    """All that may go out now."""
    found = []
    while (item := held.partial(EPOCH)) is not None:
        found.append((item[0], b"".join(item[1])))
    return found


def test_text_gathers_until_there_is_credit_and_goes_in_one_piece() -> None:
    held = stream()
    held.text += b"one "
    held.text += b"two"
    held.tokens = 2
    assert sent(held) == []
    held.resume(wire.Credit(b"i" * 16, 3))
    ((partial, text),) = sent(held)
    assert text == b"one two"
    assert (partial.seq, partial.offset, partial.tokens, partial.attempt, partial.epoch) == (1, 0, 2, 1, EPOCH)
    held.text += b" three"
    ((partial, text),) = sent(held)
    assert (partial.seq, partial.offset, text) == (2, 7, b" three")
    assert held.credit == 1


def test_nobody_who_did_not_ask_is_streamed_to() -> None:
    held = stream(wanted=False, credit=10)
    held.text += b"text"
    assert sent(held) == []


def test_a_prompts_progress_is_told_once_and_costs_credit() -> None:
    held = stream(credit=2)
    held.progress = (256, 1000)
    ((partial, text),) = sent(held)
    assert (partial.done, partial.total, text) == (256, 1000, b"")
    held.progress = (512, 1000)
    assert [(p.seq, p.done) for p, _ in sent(held)] == [(2, 512)]
    held.progress = (768, 1000)
    assert sent(held) == []


def test_a_large_text_is_cut_into_payloads() -> None:
    held = stream(credit=5)
    held.text += b"x" * (wire.MAX_PAYLOAD + 5)
    parts = sent(held)
    assert [(p.seq, p.offset, len(text)) for p, text in parts] == [(1, 0, wire.MAX_PAYLOAD), (2, wire.MAX_PAYLOAD, 5)]


def test_a_reader_who_comes_back_is_streamed_to_from_where_he_is() -> None:
    held = stream(credit=5)
    held.text += b"0123456789"
    sent(held)
    held.reset()
    held.text += b"ab"
    assert sent(held) == [], "nothing goes out before the broker says from where"
    held.resume(wire.Credit(b"i" * 16, n=2, attempt=3, have=4, seq=7))
    ((partial, text),) = sent(held)
    assert (partial.attempt, partial.seq, partial.offset, text) == (3, 8, 4, b"456789ab")
    assert held.credit == 1


def test_a_reader_who_claims_more_than_there_is_gets_what_follows() -> None:
    held = stream()
    held.text += b"abc"
    held.resume(wire.Credit(b"i" * 16, n=5, attempt=2, have=100))
    held.text += b"def"
    assert [text for _, text in sent(held)] == [b"def"]


@given(st.lists(st.one_of(st.binary(max_size=5), st.integers(0, 3)), max_size=40))
def test_what_is_sent_joins_to_the_text_without_gaps(events: list[bytes | int]) -> None:
    held = stream()
    parts = []
    granted = 0
    for event in events:
        if isinstance(event, bytes):
            held.text += event
        else:
            granted += event
            held.resume(wire.Credit(b"i" * 16, event))
        parts += sent(held)
    assert len(parts) <= granted
    assert [partial.seq for partial, _ in parts] == list(range(1, len(parts) + 1))
    joined = b""
    for partial, text in parts:
        assert partial.offset == len(joined)
        joined += text
    assert held.text.startswith(joined)
    if held.credit:
        assert joined == held.text
