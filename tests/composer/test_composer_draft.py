from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from composer.writing.draft import NOTHING, Draft
from ssmprov.transcript import FENCE, HALF_FENCE, check_role, full_step, half_step, header, turns_of

USER, REPLY = "[USER]: ", "[INTERFACE]: "
TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1).filter(
    lambda text: not text.startswith("/") and text != "\n"
)
TRICKY = st.lists(st.sampled_from(["(Turn 3) [USER]: x", "~~~(end)~~~", "\\~~~(end)~~~", "", "text", "\r"]), min_size=1)
ROLES = st.text(st.characters(blacklist_characters="[]\r\n", blacklist_categories=["Cs"]), min_size=1, max_size=64)
NUMBERS = st.integers(0, 10**15)


def dropped(text: str) -> str:
    return text.removesuffix("\n")


@given(NUMBERS, ROLES, TEXTS | TRICKY.map("\n".join))
def test_a_half_step_is_that_of_the_shell_to_the_character(number: int, role: str, text: str) -> None:
    sent, last = Draft(text, opening=f"[{role}]: ", divider=HALF_FENCE).compose(number)
    assert sent == half_step(number, role, dropped(text))
    assert last == number


@given(NUMBERS, ROLES, ROLES, TEXTS | TRICKY.map("\n".join))
def test_a_full_step_is_that_of_the_shell_to_the_character(number: int, role: str, reply: str, text: str) -> None:
    sent, last = Draft(text, opening=f"[{role}]: ", divider=FENCE, reply=f"[{reply}]: ").compose(number)
    assert sent == full_step(number, role, dropped(text), reply)
    assert last == number + 1


@given(TRICKY.map("\n".join))
def test_what_was_written_is_read_back_as_the_content(text: str) -> None:
    sent, _ = Draft(text, opening=USER, divider=FENCE).compose(7)
    assert [turn.content for turn in turns_of(sent)] == [dropped(text)]


def test_without_an_opening_the_text_goes_as_it_is() -> None:
    raw = "(Turn 9) [USER]: hello" + FENCE
    assert Draft(raw).compose(3) == (raw.removesuffix("\n"), 2)


def test_without_an_opening_the_reply_takes_the_number_itself() -> None:
    assert Draft("", reply=REPLY).compose(3) == (header(3, "INTERFACE"), 3)
    assert Draft("go", divider=FENCE, reply=REPLY).compose(3) == ("go" + FENCE + header(3, "INTERFACE"), 3)


def test_one_newline_at_the_end_is_dropped_and_no_more() -> None:
    assert Draft("a\n\n", opening=USER, divider=FENCE).compose(1)[0] == half_step(1, "USER", "a\n").replace(
        HALF_FENCE, FENCE
    )


@pytest.mark.parametrize(
    ("draft", "asks"),
    [
        (Draft("a", opening=USER, divider=HALF_FENCE), False),
        (Draft("a" + HALF_FENCE), False),
        (Draft("a", opening=USER, divider=FENCE, reply=REPLY), True),
        (Draft("a", opening=USER, divider=FENCE), True),
        (Draft("raw"), True),
        (Draft("/save it", opening=USER, divider=FENCE, reply=REPLY), False),
    ],
)
def test_a_half_step_asks_nothing_of_the_model(draft: Draft, asks: bool) -> None:
    assert draft.asks is asks


def test_a_slash_command_ignores_the_lists_and_takes_no_number() -> None:
    draft = Draft("/save draft-1\n", opening=USER, divider=FENCE, reply=REPLY)
    assert draft.slash
    assert draft.compose(5) == ("/save draft-1", 4)
    assert draft.problem() == ""
    assert not Draft(" /not a command").slash


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (Draft("", opening=USER, divider=FENCE, reply=REPLY), NOTHING),
        (Draft("\n", opening=USER, divider=FENCE, reply=REPLY), NOTHING),
        (Draft(""), NOTHING),
        (Draft("a", opening=USER, divider=HALF_FENCE, reply=REPLY), "half step has no reply"),
        (Draft("a", opening=USER, reply=REPLY), "start a new line"),
        (Draft("a", reply=REPLY), "start a new line"),
        (Draft("a\0b", opening=USER, divider=FENCE), "U+0000"),
        (Draft("one\ntwo \ud800", opening=USER, divider=FENCE), "line 2"),
        (Draft("a", bang="!one two three four"), "three words"),
        (Draft("a", bang="!../secret"), "bang line is not valid"),
        (Draft("a", bang="!ok set @mine"), "reserved"),
        (Draft("a", bang="!ok ../set"), "bang line is not valid"),
        (Draft("a", bang="!a\nb"), "single line"),
        (Draft("a", bang="!a\0"), "bang line cannot be sent"),
    ],
)
def test_what_cannot_be_sent_says_why(draft: Draft, said: str) -> None:
    assert said in draft.problem()


@pytest.mark.parametrize(
    "draft",
    [
        Draft("a", bang="!primed standard onestep", opening=USER, divider=FENCE, reply=REPLY),
        Draft("a", bang="primed:live~2", opening=USER, divider=HALF_FENCE),
        Draft("a", bang="!primed set !once"),
        Draft("a", bang="!"),
        Draft("", divider=FENCE, reply=REPLY),
        Draft("", reply=REPLY),
        Draft("raw text"),
    ],
)
def test_what_can_be_sent_has_no_problem(draft: Draft) -> None:
    assert draft.problem() == ""


@given(TEXTS, st.sampled_from(["", USER]), st.sampled_from(["", HALF_FENCE, FENCE]), st.sampled_from(["", REPLY]))
def test_a_draft_without_a_problem_begins_its_headers_on_lines(
    text: str, opening: str, divider: str, reply: str
) -> None:
    draft = Draft(text, opening=opening, divider=divider, reply=reply)
    if draft.problem() or not reply:
        return
    sent, last = draft.compose(41)
    turn = turns_of(sent)[-1]
    assert (turn.number, turn.role, turn.content) == (last, check_role("INTERFACE"), "")
