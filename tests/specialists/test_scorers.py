"""Scorers: valid is what a real parser takes, and nothing of an answer is run or read into."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.scorers import SCORERS, Expected, Score, scorer_of
from specialists.scorers.base import ends_cleanly
from specialists.scorers.text_rules import repetition
from ssmprov.errors import BadRequest

CIRCLE = '<svg viewBox="0 0 9 9"><circle cx="4" cy="4" r="3" fill="#28c"/></svg>'
BARS = "<svg>" + "".join(f'<rect x="{x}" height="{10 + 5 * x}" fill="#d94"/>' for x in range(3)) + "</svg>"


def score(scorer: str, answer: str, tags: str = "", **expected: object) -> Score:
    return SCORERS[scorer](answer, Expected(tags=tuple(tags.split()), **expected))  # type: ignore[arg-type]


def shown(scored: Score) -> dict[str, bool]:
    return {hit.what: hit.shown for hit in scored.hits}


def test_a_drawing_is_held_against_its_tags() -> None:
    good = score("xml", CIRCLE, "circle palette:cool style:filled")
    assert good.valid
    assert good.passes
    assert good.adherence == 1.0
    assert ends_cleanly(CIRCLE, good)
    other = score("xml", CIRCLE, "rect palette:warm style:outline count:1")
    assert other.valid
    assert other.adherence == 0.0
    assert shown(score("xml", BARS, "bar-chart bars:3 ascending palette:warm axes descending")) == {
        "[bar-chart]": True,
        "[bars:3]": True,
        "[ascending]": True,
        "[palette:warm]": True,
        "[axes]": False,
        "[descending]": False,
    }


@pytest.mark.parametrize(
    ("tags", "inside", "expected"),
    [
        ("triangle", '<polygon points="0,0 1,1 2,0"/>', True),
        ("triangle", '<polygon points="0,0 1,1 2,0 3,3"/>', False),
        ("circle count:2", "<circle/><circle/>", True),
        ("circle count:2", "<circle/>", False),
        ("style:outline", '<circle fill="none" stroke="#000"/>', True),
        ("style:minimal", "<circle/><circle/><circle/>", False),
        ("palette:cool", '<circle fill="#000"/>', False),  # none of its own colours
        ("palette:cool", '<circle fill="#28c" stroke="#fff"/>', True),
        ("bars:x", "<rect/>", False),
    ],
)
def test_each_tag_can_be_missed(tags: str, inside: str, expected: bool) -> None:
    assert score("xml", f"<svg>{inside}</svg>", tags).passes == expected


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "no element"),
        ("a circle", "syntax error"),
        ("<svg><circle></svg>", "mismatched tag"),
        ("<svg><circle/>", "no element found"),
        ("<html></html>", "not svg"),
        ('<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>', "document type"),
        ("<svg>" + "<g>" * 100 + "</g>" * 100 + "</svg>", "nested more than"),
        ("<svg>" + "x" * 70_000 + "</svg>", "longer than 65536 characters"),
        ("<svg>\x01</svg>", "not well-formed"),
    ],
)
def test_what_no_parser_takes_is_not_valid(answer: str, why: str) -> None:
    found = score("xml", answer, "circle")
    assert found.valid is False
    assert why in found.why
    assert found.adherence == 0.0


def test_what_follows_the_close_is_no_clean_stop() -> None:
    spilt = score("xml", CIRCLE + " and more", "circle")
    assert spilt.valid  # the document is
    assert not ends_cleanly(CIRCLE + " and more", spilt)
    assert ends_cleanly(CIRCLE + "\n ", score("xml", CIRCLE + "\n ", "circle"))
    assert not score("xml", "here: " + CIRCLE, "circle").prefix


@pytest.mark.parametrize(
    ("answer", "valid", "hit"),
    [
        ("<plan>look; clean</plan><final_agent>shell_operator</final_agent>", True, True),
        ("<plan>look</plan><final_agent>researcher</final_agent>", True, False),
        ("<plan>look</plan><final_agent>nobody</final_agent>", False, False),
        ("<plan>;</plan><final_agent>researcher</final_agent>", False, False),
        ("<final_agent>researcher</final_agent>", False, False),
        ("<plan>look</plan>", False, False),
    ],
)
def test_a_route_has_a_plan_and_an_agent(answer: str, valid: bool, hit: bool) -> None:
    found = score("route", answer, "route agent:terminal")
    assert (found.valid, found.adherence == 1.0) == (valid, hit)


PROGRAMS = [
    ("python", "def f(a):\n    return a\n", "def f(a:\n"),
    ("json", '{"a": [1, 2]}', '{"a": NaN}'),
    ("sql", "SELECT a, 'x;y' FROM t WHERE b = 1; DELETE FROM t", "SELEC a FROM t"),
    ("c", "#include <stdio.h>\nint main(void) { return 0; }\n", "int main( { return }"),
    ("bash", "for x in a b; do echo $x; done", "for x in; do"),
]


@pytest.mark.parametrize(("language", "good", "bad"), PROGRAMS, ids=[one[0] for one in PROGRAMS])
def test_a_program_is_parsed_by_its_language(language: str, good: str, bad: str) -> None:
    if language in ("c", "bash") and shutil.which({"c": "cc"}.get(language, language)) is None:
        pytest.skip(f"no parser of {language} is installed")
    assert score("code", f"<solution>{good}</solution>", f"code lang:{language}").valid
    found = score("code", f"<solution>{bad}</solution>", f"code lang:{language}")
    assert found.valid is False
    assert found.why


@pytest.mark.parametrize(
    ("language", "program", "why"),
    [
        ("python", "(" * 3000, ""),
        ("python", "x = '\\d'\n" + "1" * 5000, ""),
        ("json", "[" * 100_000, ""),
        ("c", '#include "/dev/zero"\n', "only headers"),
        ("c", "#include </etc/passwd>\n", "only headers"),
        ("c", "#define H <stdio.h>\n#include H\n", "only headers"),
        ("c", "%: include </etc/passwd>\n", "only headers"),
        ("c", "#inc\\\nlude </etc/passwd>\n", "only headers"),
        ("c", "#inc\\ \nlude /**/ </etc/passwd>\n", "only headers"),
        ("c", "#/*\n*/include </etc/passwd>\n", "only headers"),
        ("c", "??=include </etc/passwd>\n", "error"),
        ("c", '#embed "/etc/passwd"\n', "is not allowed"),
        ("cobol", "x", "no parser for the language"),
        ("python", "x" * 70_000, "more than 65536 characters"),
    ],
)
def test_a_program_that_would_do_harm_is_a_fault(language: str, program: str, why: str) -> None:
    found = score("code", f"<solution>{program}</solution>", f"code lang:{language}")
    assert found.valid is False
    assert why in found.why


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_nothing_is_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for language, program in [("bash", f"touch {made}"), ("python", f"open({str(made)!r}, 'w')")]:
        assert score("code", f"<solution>{program}</solution>", f"code lang:{language}").valid
    assert not made.exists()
    attached = score("code", f"<solution>ATTACH '{made}' AS a; CREATE TABLE a.t (x)</solution>", "code lang:sql")
    assert attached.valid is not None
    assert not made.exists()


def test_a_parser_that_is_not_there_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = score("code", "<solution>echo</solution>", "code lang:bash")
    assert found.valid is None
    assert "not installed" in found.why


def test_rules_on_text() -> None:
    assert score("text_rules", "a b", contains=("a",), forbids=("c",), starts="a", exactly="a b", matches="a.b").passes
    assert shown(score("text_rules", "a b", contains=("c",), forbids=("a",), exactly="x", matches="b.*")) == {
        "contains 'c'": False,
        "free of 'a'": False,
        "is as expected": False,
        "matches 'b.*'": False,
    }
    assert score("text_rules", " ").valid is False
    assert score("text_rules", "one two three four five " * 9).valid is False
    assert repetition("one two three four five six seven eight nine ten") == 0.0


@pytest.mark.parametrize(
    ("answer", "valid"),
    [("hello", True), ("", False), ("a\n(Turn 3) [USER]: b", False), ("a\n\n~~~(end)~~~\n\n", False)],
)
def test_a_turn_holds_no_other(answer: str, valid: bool) -> None:
    assert score("turn", answer).valid is valid


@given(st.sampled_from(sorted(SCORERS)), st.text(max_size=200), st.sampled_from(["", "circle", "code lang:sql"]))
def test_any_answer_is_judged(scorer: str, answer: str, tags: str) -> None:
    found = score(scorer, answer, tags)
    assert 0 <= found.adherence <= 1
    assert found.end is None or 0 <= found.end <= len(answer)


def test_no_such_scorer() -> None:
    with pytest.raises(BadRequest, match="there is no scorer"):
        scorer_of("xlm")
