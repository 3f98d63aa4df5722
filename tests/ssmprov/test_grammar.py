"""The bang and slash grammar of a request, and the fences of a transcript."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssmprov.commands import HELP, KNOBS, LOOKS, PROBE, STORES, Bang, Command, Slash, parse, parse_bang, parse_slash
from ssmprov.errors import BadRequest
from ssmprov.settings import KEYS
from ssmprov.transcript import FENCE, FENCE_REST, HALF_FENCE, full_step, half_step, header

words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Z", "C"], exclude_characters="!"), min_size=1, max_size=8
)


@pytest.mark.parametrize(
    ("text", "bang", "prompt"),
    [
        ("!primed\nhello", Bang("primed"), "hello"),
        ("!primed standard\nhello", Bang("primed", "standard"), "hello"),
        ("!primed standard onestep\nhello", Bang("primed", "standard", "onestep"), "hello"),
        ("!primed standard !onestep\nhello", Bang("primed", "standard", "onestep"), "hello"),
        ("!primed standard onestep\r\nhello", Bang("primed", "standard", "onestep"), "hello"),
        ("!  primed \t standard  \n\n hello \n", Bang("primed", "standard"), "\n hello \n"),
        ("!primed", Bang("primed"), ""),
        ("!primed\n", Bang("primed"), ""),
        ("!\nhello", Bang(), "hello"),
        ("!a\n!b\nc", Bang("a"), "!b\nc"),
    ],
)
def test_a_bang_line_stands_before_the_prompt(text: str, bang: Bang, prompt: str) -> None:
    assert parse(text) == Command(bang, None, prompt)


def test_a_request_without_a_bang_is_all_prompt() -> None:
    for text in ("", "hello", " !a\nb", "hi !a", "\n!a", "a /t 1", "~~~("):
        assert parse(text) == Command(None, None, text)


def test_four_words_are_no_bang_line() -> None:
    with pytest.raises(BadRequest, match="at most three"):
        parse("!a b c d\nhello")


@given(st.text(max_size=60))
def test_a_prompt_is_kept_to_the_byte(text: str) -> None:
    if text.startswith("!") or text.strip().startswith("/"):
        return
    assert parse(text) == Command(None, None, text)
    assert parse("!a b c\n" + text) == Command(Bang("a", "b", "c"), None, text)


@given(st.lists(words, max_size=3), st.sampled_from([" ", "  ", "\t"]))
def test_a_bang_line_is_its_words(line: list[str], blank: str) -> None:
    bang = parse_bang("!" + blank.join(line))
    assert [bang.load, bang.settings, bang.save] == [*line, "", "", ""][:3]


@pytest.mark.parametrize(
    ("text", "slash"),
    [
        ("/save", Slash("/save")),
        ("/save NAME", Slash("/save", "NAME")),
        ("  /Save  NAME \n", Slash("/save", "NAME")),
        ("/t 0.5", Slash("/t", "0.5")),
        ("/?", Slash("/?")),
        ("/unknown thing more", Slash("/unknown", "thing more")),
        ("/", Slash("/")),
        ("/t\t0.5", Slash("/t", "0.5")),
    ],
)
def test_a_slash_command_is_a_word_and_its_argument(text: str, slash: Slash) -> None:
    assert parse_slash(text) == slash
    assert parse(text) == Command(None, slash, text)
    assert parse("!a\n" + text) == Command(Bang("a"), slash, text)


def test_what_begins_with_anything_else_is_no_command() -> None:
    for text in ("", " ", "t /save", "\\save", "-/x"):
        assert parse_slash(text) is None


def test_the_known_commands_are_those_of_the_protocol() -> None:
    known = {
        "/save",
        "/load",
        "/save_set",
        "/load_set",
        "/t",
        "/p",
        "/k",
        "/min_p",
        "/pen_freq",
        "/pen_pres",
        "/pen_rep",
    }
    known |= {"/max", "/probe", "/routing", "/slotmask", "/?"}
    assert {*KNOBS, *STORES, PROBE, *LOOKS, HELP} == known
    for word in known:
        assert Slash(word).known
    assert not Slash("/quit").known
    assert not Slash("/").known
    assert {key for key, _ in KNOBS.values()} == set(KEYS)
    assert STORES == {"/save": "kv.pkl", "/load": "kv.pkl", "/save_set": "set.json", "/load_set": "set.json"}


def test_the_fences_are_parts_of_one_another() -> None:
    assert FENCE == HALF_FENCE + FENCE_REST == "\n\n~~~(end)~~~\n\n"


def test_steps_are_written_as_the_protocol_has_them() -> None:
    assert header(3, "USER") == "(Turn 3) [USER]: "
    assert half_step(3, "USER", "hi") == "(Turn 3) [USER]: hi\n\n~~~("
    assert full_step(3, "USER", "hi", "PLAN") == "(Turn 3) [USER]: hi\n\n~~~(end)~~~\n\n(Turn 4) [PLAN]: "
