"""The grammar of transcripts: nothing is lost in reading, and everything written is read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssmprov.errors import BadRequest
from ssmprov.transcript import (
    FENCE,
    FENCE_REST,
    HALF_FENCE,
    Gap,
    Oddity,
    Transcript,
    Turn,
    check_role,
    full_step,
    half_step,
    oddities,
    parse,
    quote,
    turn,
    turns_of,
    written,
)

PRIMER = Path(__file__).parents[3] / "shared" / "legacy" / "primer_cli.txt"

PARTS = [
    *("(Turn 3) [USER]: ", "(Turn 3) [USER]:", "(Turn  12)[A B]: ", "(Turn x) [USER]: ", "(Turn 3) []: ", "(Turn 3) ["),
    *("\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "~~~(end)~~~", FENCE, HALF_FENCE, FENCE_REST, "~~~(", "~~~(end)~~~ \n"),
    *("text", " ", "\\", "\\\\", "é🦀", "\t", "\u2028", "\x0b", "> ", "\x00", "\udcff", "\ufeff"),
]
TEXTS = st.one_of(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), st.text(max_size=40))
ROLES = st.from_regex(r"[A-Za-z_]([A-Za-z_ .-]{0,10}[A-Za-z_])?", fullmatch=True)


@given(TEXTS)
def test_reading_loses_nothing(text: str) -> None:
    items = parse(text)
    assert written(items) == text
    line = 1
    for item in items:
        assert item.line == line
        assert item.text
        line += item.text.count("\n")


def test_a_byte_order_mark_belongs_to_no_turn_and_hides_no_header() -> None:
    text = "\ufeff" + turn(1, "USER", "hello") + turn(2, "FILE", "\ufeffkept")
    assert [(t.number, t.content) for t in turns_of(text)] == [(1, "hello"), (2, "\ufeffkept")]
    assert [oddity.line for oddity in oddities(parse(text))] == [1]
    growing = Transcript()
    for character in text:
        growing.append(character)
    assert growing.items == parse(text)


def test_a_transcript_with_crlf_gives_the_contents_that_were_put_in() -> None:
    lines = "#!/bin/sh\necho one\n\n\necho two\n"
    converted = (turn(1, "BASH", lines) + turn(2, "FILE", "a\n(Turn 3) [USER]: b\n")).replace("\n", "\r\n")
    assert [t.content for t in turns_of(converted)] == [lines, "a\n(Turn 3) [USER]: b\n"]
    assert written(parse(converted)) == converted
    (kept,) = turns_of(turn(1, "FILE", "a\r\nb\r\n"))  # the file itself has CRLF, its transcript does not
    assert kept.content == "a\r\nb\r\n"


@given(st.integers(0, 10**18 - 1), ROLES, TEXTS)
@example(1, "FILE", "\n\n~~~(end)~~~")
@example(1, "FILE", "\n(Turn 1) [FILE]: x")
@example(1, "FILE", "\n\\(Turn 1) [FILE]: x\n\\\\~~~(end)~~~ \r")
@example(1, "FILE", "a\r\n\r")
def test_any_content_is_read_back_as_one_turn(number: int, role: str, content: str) -> None:
    (found,) = turns_of(turn(number, role, content))
    assert (found.number, found.role, found.content, found.closed) == (number, role, content, True)
    assert parse(turn(number, role, content)) == [found]
    assert list(oddities([found])) == [] or "\udcff" in content


@given(st.lists(st.tuples(ROLES, TEXTS), min_size=1, max_size=5))
def test_turns_one_after_the_other_stay_apart(said: list[tuple[str, str]]) -> None:
    text = "".join(turn(number, role, content) for number, (role, content) in enumerate(said))
    found = parse(text)
    assert [(t.role, t.content) for t in found if isinstance(t, Turn)] == said
    assert len(found) == len(said)


@given(ROLES, TEXTS)
def test_a_half_step_with_its_rest_is_a_turn(role: str, content: str) -> None:
    asked = half_step(7, role, content)
    (open_turn,) = turns_of(asked)
    assert (open_turn.half, open_turn.closed, open_turn.content) == (True, False, content)
    assert asked + FENCE_REST == turn(7, role, content)


@given(ROLES, ROLES, TEXTS, TEXTS)
def test_a_full_step_with_its_reply_is_two_turns(role: str, other: str, content: str, reply: str) -> None:
    first, *rest = turns_of(full_step(7, role, content, other))
    assert (first.content, [(t.number, t.role, t.body) for t in rest]) == (content, [(8, other, "")])


@given(TEXTS, st.lists(st.integers(0, 200), max_size=6))
@example("(Turn 3) [USER]: x", [16])
@example("x\n(Turn 3) [USER]: ", [18])
def test_a_growing_text_is_read_as_the_whole(text: str, cuts: list[int]) -> None:
    growing = Transcript()
    at = 0
    shown: list[Turn | Gap] = []
    for cut in [*sorted(min(cut, len(text)) for cut in cuts), len(text)]:
        before = shown
        first = growing.append(text[at:cut])
        shown = growing.items
        at = cut
        assert shown == parse(text[:cut])
        assert shown[:first] == before[:first]
    assert shown == parse(text)


@given(TEXTS)
def test_oddities_name_lines_that_there_are(text: str) -> None:
    for oddity in oddities(parse(text)):
        assert 1 <= oddity.line <= text.count("\n") + 1
        assert str(oddity).startswith(f"line {oddity.line}: ")


# -- tolerance


def only(text: str) -> Turn:
    (found,) = (item for item in parse(text) if isinstance(item, Turn))
    return found


@pytest.mark.parametrize(
    "fence",
    [
        *(FENCE, "\n\n~~~(end)~~~ \n\n", "\n\n~~~(end)~~~\t \n\n", "\n\n~~~(end)~~~\n", "\n\n~~~(end)~~~"),
        *("\r\n\r\n~~~(end)~~~\r\n\r\n", "\r\n\r\n~~~(end)~~~"),
    ],
)
def test_fences_that_people_and_editors_leave_are_fences(fence: str) -> None:
    found = only("(Turn 1) [USER]: hi" + fence)
    assert (found.content, found.tail) == ("hi", fence)
    assert bool(list(oddities([found]))) == (fence != FENCE)


@pytest.mark.parametrize(
    "close", ["\n~~~(end)~~~\n\n", "\n\n~~~(end)~~~\nmore", "\n\n ~~~(end)~~~\n\n", "~~~(end)~~~\n\n"]
)
def test_a_fence_without_its_empty_lines_is_text(close: str) -> None:
    assert not only("(Turn 1) [USER]: hi" + close).closed


def test_the_last_fence_before_the_next_header_ends_a_turn() -> None:
    text = "(Turn 1) [FILE]: a" + FENCE + "b" + FENCE + "(Turn 2) [USER]: c" + FENCE
    assert [t.content for t in turns_of(text)] == ["a" + FENCE + "b", "c"]


def test_a_header_takes_one_space_and_leaves_the_rest() -> None:
    assert only("(Turn 1) [USER]:   indented\n\n" + FENCE).content == "  indented\n\n"
    assert only("(Turn 1) [USER]:\n\nx" + FENCE).content == "\n\nx"
    assert only("(Turn 1) [USER]: " + FENCE).content == ""


def test_headers_within_a_line_are_text() -> None:
    assert only("(Turn 1) [USER]: see (Turn 2) [USER]: this" + FENCE).content == "see (Turn 2) [USER]: this"
    assert [type(item) for item in parse(" (Turn 1) [USER]: x" + FENCE)] == [Gap]


def test_text_between_turns_belongs_to_none() -> None:
    items = parse("preface\n" + turn(1, "USER", "a") + "stray\n" + turn(2, "USER", "b"))
    assert [item.text for item in items if isinstance(item, Gap)] == ["preface\n", "stray\n"]
    assert [str(oddity) for oddity in oddities(items)] == [
        "line 1: text that belongs to no turn",
        "line 6: text that belongs to no turn",
    ]


def test_odd_things_are_told_by_line() -> None:
    text = turn(5, "A", "x") + turn(5, "B", "y") + "(Turn 3) [C]:z\n\n~~~(end)~~~ \n\n(Turn 9) [D]: open\n~~~(end)~~~\n"
    assert list(oddities(parse(text))) == [
        Oddity(5, "turn 5 already exists, in line 1"),
        Oddity(9, "turn 3 comes after turn 5"),
        Oddity(9, "its header should be '(Turn 3) [C]: '"),
        Oddity(11, "the fence of turn 3 has spaces after it"),
        Oddity(14, "turn 9 contains a fence that is read as text"),
        Oddity(13, "turn 9 is open"),
    ]


def test_the_real_primer_is_read_whole() -> None:
    if not PRIMER.exists():
        pytest.skip("the old primer is not here")
    text = PRIMER.read_bytes().decode()
    items = parse(text)
    assert written(items) == text
    turns = [item for item in items if isinstance(item, Turn)]
    assert [t.number for t in turns] == [*range(12), 11, 12, 13]
    assert [(t.role, t.closed) for t in turns[-4:]] == [
        ("BASH", True),
        ("OUTPUT", True),
        ("USER", True),
        ("BASH", False),
    ]
    assert turns[-1].half
    assert [oddity.what for oddity in oddities(items)] == [
        "turn 11 already exists, in line 1273",
        "the fence of turn 12 has spaces after it",
        "turn 13 is open",
    ]


# -- writing


@pytest.mark.parametrize("role", ["", " USER", "USER ", "A]", "[A", "A\nB", "x" * 65])
def test_a_role_that_could_not_be_read_back_is_refused(role: str) -> None:
    with pytest.raises(BadRequest, match="not a valid role"):
        check_role(role)


def test_a_quote_has_the_header_and_every_line() -> None:
    quoted = quote(only(turn(4, "USER", "one\ntwo\n\nfour")))
    assert quoted == "> (Turn 4) [USER]:\n> one\n> two\n> \n> four"


# -- cost


@pytest.mark.parametrize(
    "part",
    ["(Turn 1) [A]: ", "(Turn 1) [A]: \n", "\n~~~(end)~~~", "\n\n~~~(end)~~~ \n", "\\", "x", "\n\n~~~(end)~~~\nx"],
)
def test_hostile_texts_of_megabytes_are_read_in_linear_time(part: str) -> None:
    text = "(Turn 1) [A]: " + part * (4_000_000 // len(part))  # in quadratic time the suite's timeout would end it
    assert written(parse(text)) == text
    assert turns_of(turn(1, "A", text))[0].content == text


def test_a_turn_that_grows_token_by_token_is_not_read_again_each_time() -> None:
    growing = Transcript(turn(0, "USER", "x\n" * 50_000))
    growing.append("(Turn 1) [A]: ")
    for _ in range(20_000):
        growing.append("token\n")
    assert growing.append("\n(Turn 2) [A]: y") == 1
    assert [t.number for t in growing.turns] == [0, 1, 2]


def test_a_quote_breaks_lines_only_where_the_turn_does() -> None:
    (quoted,) = turns_of(turn(1, "A", "a\fb\u2028c\r\n\nd\n"))
    assert quote(quoted) == "> (Turn 1) [A]:\n> a\fb\u2028c\n> \n> d"
