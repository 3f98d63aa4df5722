"""Rows of a specialist: what keeps the contract is read, and what breaks it is told by place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.grammars import GRAMMARS, grammar_of
from specialists.rows import EOS, Report, Row, escaped, read_rows
from ssmprov.errors import BadRequest

SVG = '[circle][palette:cool]<svg viewBox="0 0 9 9"><circle r="3"/></svg>'
ROUTE = (
    "[route][domain:linux][agent:terminal]<query>disk full</query><plan>look; clean</plan><final_agent>x</final_agent>"
)
CODE = r"[code][lang:python][task:write]<prompt>add</prompt><solution>def f(a):\n\treturn a\n</solution>"
PAIR = "hello\tworld"


def read(tmp_path: Path, data: bytes, track: str = "svg", **options: bool) -> tuple[list[Row], Report]:
    path = tmp_path / "rows.txt"
    path.write_bytes(data)
    return read_rows(path, grammar_of(track), **options)


@pytest.mark.parametrize(
    ("track", "line", "prompt", "answer", "tags"),
    [
        ("svg", SVG, "[circle][palette:cool]", SVG[22:], ("circle", "palette:cool")),
        ("routing", ROUTE, ROUTE[: ROUTE.index("<plan>")], ROUTE[ROUTE.index("<plan>") :],
         ("route", "domain:linux", "agent:terminal")),
        ("code", CODE, "[code][lang:python][task:write]<prompt>add</prompt>",
         "<solution>def f(a):\n\treturn a\n</solution>", ("code", "lang:python", "task:write")),
        ("pairs", PAIR, "hello", "world", ()),
    ],
)  # fmt: skip
def test_a_row_is_a_prompt_and_its_answer(
    tmp_path: Path, track: str, line: str, prompt: str, answer: str, tags: tuple[str, ...]
) -> None:
    rows, report = read(tmp_path, f"{line}\n\n{line}{EOS}\r\n".encode(), track)
    assert rows == [Row(1, prompt, answer, tags), Row(3, prompt, answer, tags)]
    assert report.passed
    assert (report.rows, report.lines, report.repeated) == (2, 3, 1)
    assert report.tags == dict.fromkeys(sorted(tags), 2)


@pytest.mark.parametrize(
    ("track", "line", "column", "why"),
    [
        ("svg", "<svg></svg>", 1, "must begin with tags"),
        ("svg", "[circle]", 9, "<svg must follow the tags"),
        ("svg", "[circle]<svg>", 14, "</svg> is missing"),
        ("svg", "[circle]<svg></svg> more", 20, "the row must end here"),
        ("svg", "[Circle]<svg></svg>", 1, "must begin with tags"),
        ("routing", "[circle]<query>a</query>", 1, "[route]"),
        ("routing", "[route]<query>a</query><final_agent>", 24, "<plan> is expected"),
        ("routing", "[route]<query> </query>", 15, "is empty"),
        ("code", "[code]<prompt>a</prompt>", 1, "must name its language"),
        ("code", r"[code][lang:c]<prompt>a</prompt><solution>\q</solution>", 43, "is not a valid escape"),
        ("pairs", "no tabulator", 13, "a tab must separate"),
        ("pairs", "a\tb\tc", 4, "a second tab"),
        ("pairs", "\tb", 1, "must not be empty"),
        ("svg", "[circle]<svg>é</svg>", 14, "not ASCII"),
        ("svg", "[circle]<svg>\0</svg>", 14, "a NUL"),
    ],
)
def test_an_offence_is_told_by_its_place(tmp_path: Path, track: str, line: str, column: int, why: str) -> None:
    good = {"svg": SVG, "routing": ROUTE, "code": CODE, "pairs": PAIR}[track]
    rows, report = read(tmp_path, f"{good}\n{line}\n{good}\n".encode(), track)
    assert [row.line for row in rows] == [1, 3]
    (offence,) = report.offences
    assert (offence.line, offence.column) == (2, column)
    data = line.encode()
    assert offence.byte == (data[column - 1] if column <= len(data) else -1)
    assert why in offence.why
    with pytest.raises(BadRequest, match=rf"line 2, column {column}"):
        report.refuse()


def test_other_alphabets_are_a_choice(tmp_path: Path) -> None:
    line = "[circle]<svg>é</svg>\n".encode()
    rows, report = read(tmp_path, line, ascii_only=False)
    assert report.passed
    assert rows[0].answer == "<svg>é</svg>"
    _, broken = read(tmp_path, b"[circle]<svg>\xff</svg>\n", ascii_only=False)
    assert [offence.why for offence in broken.offences] == ["not UTF-8"]


def test_the_first_offences_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    _, report = read(tmp_path, b"nothing\n" * 20)
    assert (report.offended, len(report.offences)) == (20, 8)
    with pytest.raises(BadRequest, match="and 12 more"):
        report.refuse()


@pytest.mark.parametrize("data", [b"", b"\n \n"])
def test_a_file_without_rows_is_refused(tmp_path: Path, data: bytes) -> None:
    _, report = read(tmp_path, data)
    with pytest.raises(BadRequest, match="has no rows"):
        report.refuse()


def test_a_row_has_a_bounded_length(tmp_path: Path) -> None:
    rows, report = read(tmp_path, b"[circle]<svg>" + b"x" * (1 << 20) + b"</svg>\n" + SVG.encode())
    assert [row.line for row in rows] == [2]
    assert "a row may have at most 1048576 bytes" in report.offences[0].why


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1))
def test_any_text_stands_in_a_row(text: str) -> None:
    line = f"a{escaped(text)}z"
    assert "\n" not in line
    prompt, answer, _ = GRAMMARS["pairs"].take_apart(f"q\t{line}")
    assert (prompt, answer) == ("q", line)


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1))
def test_what_is_escaped_is_read_as_it_was(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "escaped.txt"
    path.write_bytes(f"q\ta{escaped(text)}z\n".encode())
    rows, report = read_rows(path, grammar_of("pairs"), ascii_only=False)
    assert report.offences == []
    assert rows[0].answer == f"a{text}z"


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_told(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(data)
    for grammar in GRAMMARS.values():
        rows, report = read_rows(path, grammar, ascii_only=False)
        assert len(rows) + report.offended <= report.lines
        assert report.bytes == len(data)


def test_no_such_track() -> None:
    with pytest.raises(BadRequest, match="did you mean"):
        grammar_of("svgs")
