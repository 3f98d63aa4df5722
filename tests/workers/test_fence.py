"""The stop logic: where a reply's fence begins, however the text is split into tokens, and what closes it."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov.transcript import FENCE, FENCE_REST
from workers.fence import closed, closing

MARKS = (b"\n~~~(", b"end)~~", b")~~~\n\n")
FENCE_END = b")~~~\n\n"
REST = FENCE_REST.encode()
MARKISH = st.text(st.sampled_from("\n~()endé x"), max_size=40)


def write(pieces: list[bytes]) -> bytes | None:
    """The closed reply of a model that writes these pieces, or None where none of them closes it."""
    reply = b""
    for piece in pieces:
        rest = closed(reply, piece)
        if rest is not None:
            return reply + rest
        reply += piece
    return None


def splits(text: bytes) -> list[list[bytes]]:
    """Every way to cut a text into pieces."""
    places = range(1, len(text))
    cuts = [cut for count in range(len(text)) for cut in combinations(places, count)]
    return [[text[a:b] for a, b in zip((0, *cut), (*cut, len(text)), strict=True)] for cut in cuts]


def expected(text: bytes) -> bytes | None:
    """The reference: search the whole text for each mark, the earliest decides."""
    places = sorted((text.find(mark), mark) for mark in MARKS if mark in text)
    if not places:
        return None
    at, mark = places[0]
    return text[:at] + {MARKS[0]: b"\n~~~(" + REST, MARKS[1]: REST, MARKS[2]: FENCE_END}[mark]


@pytest.mark.parametrize(
    ("mark", "whole"),
    [(b"\n~~~(", b"\n~~~(end)~~~\n\n"), (b"end)~~", b"end)~~~\n\n"), (b")~~~\n\n", b")~~~\n\n")],
)
def test_each_mark_closes_the_reply_however_it_is_split(mark: bytes, whole: bytes) -> None:
    for pieces in splits(b"a" + mark):
        assert write(pieces) == b"a" + whole, pieces


def test_the_last_byte_of_a_mark_is_what_closes() -> None:
    for mark in MARKS:
        for length in range(1, len(mark)):
            assert closed(b"", mark[:length]) is None
            assert closed(mark[:length], b"x") is None


def test_the_rest_begins_with_the_piece_when_the_mark_ends_it() -> None:
    assert closed(b"yes\n\n", b"~~~(") == b"~~~(" + REST
    assert closed(b"yes\n\n~~~(end)", b"~~") == b"~~~\n\n"
    assert closed(b"odd)~~~\n", b"\n") == b"\n"


def test_what_a_token_holds_beyond_the_mark_is_cut_away() -> None:
    assert closed(b"yes\n\n", b"~~~(foo") == b"~~~(" + REST
    assert closed(b"yes\n\n~~~(", b"end)~~~~ and more") == REST
    assert closed(b"", b"x)~~~\n\n\n\n(Turn 4)") == b"x" + FENCE_END


def test_a_token_that_holds_the_whole_fence_is_the_whole_fence() -> None:
    assert closed(b"yes", FENCE.encode()) == FENCE.encode()
    assert closed(b"", b"end)~~~\n\n") == REST


def test_of_several_marks_in_one_token_the_first_decides() -> None:
    assert closed(b"", b"a)~~~\n\nb\n~~~(c") == b"a)~~~\n\n"
    assert closed(b"", b"a\n~~~(b)~~~\n\n") == b"a\n~~~(" + REST
    assert closed(b"", b"aend)~~b\n~~~(") == b"a" + REST


@pytest.mark.parametrize("text", ["", "~~~(", "\n~~ ~(", "end)~", "(end) ~~", ")~~~\n", "~~~(end)", "\n\n~~~\n\n"])
def test_what_only_resembles_a_mark_closes_nothing(text: str) -> None:
    for pieces in splits(text.encode()) if text else [[b""]]:
        assert write(pieces) is None


def test_the_reply_is_not_changed() -> None:
    reply = bytearray(b"yes\n\n~~~")
    closed(reply, b"(")
    assert reply == b"yes\n\n~~~"


@given(MARKISH, st.data())
def test_the_closed_text_depends_on_the_text_and_not_on_its_split(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=len(raw))))
    pieces = [raw[a:b] for a, b in zip((0, *cuts), (*cuts, len(raw)), strict=True)]
    result = write(pieces)
    assert result == expected(raw)
    if result is not None:
        assert result.endswith(FENCE_END)
        assert result.count(FENCE_END) == 1


@given(MARKISH, MARKISH, st.sampled_from(MARKS))
def test_a_text_with_a_mark_in_it_is_always_closed(before: str, after: str, mark: bytes) -> None:
    text = before.encode() + mark + after.encode()
    result = write([text])
    assert result is not None
    assert result == write([text[i : i + 1] for i in range(len(text))])


def test_closing_adds_what_of_the_fence_is_not_there() -> None:
    fence = FENCE.encode()
    for length in range(len(fence) + 1):
        assert closing(b"yes" + fence[:length]) == fence[length:]
    assert closing(b"") == fence
    assert closing(b"yes\n") == fence[1:]
    assert closing(b"yes ~~~(") == fence


@given(MARKISH)
def test_what_closing_gives_ends_in_one_fence_and_is_the_shortest(text: str) -> None:
    raw, fence = text.encode(), FENCE.encode()
    added = closing(raw)
    assert (raw + added).endswith(fence)
    assert not any((raw + fence[len(fence) - fewer :]).endswith(fence) for fewer in range(len(added)))
