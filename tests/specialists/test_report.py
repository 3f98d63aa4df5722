"""The report draws what is a drawing, and whatever else an answer holds stays text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.report import DRAWN, PAINTS, drawing

GOOD = '<svg viewBox="0 0 9 9"><g><circle cx="4" r="2" fill="#28c"/></g></svg>'


class Seen(HTMLParser):
    """Elements and attributes of a piece of HTML."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_drawing_is_written_anew() -> None:
    seen = Seen(drawing(GOOD + " and more"))
    assert [tag for tag, _ in seen.found] == ["svg", "g", "circle"]
    assert seen.found[2][1] == {"cx": "4", "r": "2", "fill": "#28c"}


@pytest.mark.parametrize(
    "answer",
    [
        "no drawing",
        "<svg><circle></svg>",
        "<html></html>",
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>',
    ],
)
def test_what_is_no_drawing_is_not_drawn(answer: str) -> None:
    assert drawing(answer) == ""


@pytest.mark.parametrize(
    "inside",
    [
        "<script>alert(1)</script>",
        '<image href="http://example.org/x.png"/>',
        '<circle onclick="alert(1)" r="2"/>',
        '<circle fill="url(http://example.org)" r="2"/>',
        '<circle style="background: url(x)" r="2"/>',
        '<a xmlns:x="http://www.w3.org/1999/xlink" x:href="javascript:1"><circle r="2"/></a>',
        "<foreignObject><p>text</p></foreignObject>",
        '<circle r="2&quot; onload=&quot;x"/>',
    ],
)
def test_nothing_but_known_elements_and_numbers_comes_through(inside: str) -> None:
    seen = Seen(drawing(f"<svg>{inside}</svg>"))
    assert seen.found
    for tag, attributes in seen.found:
        allowed = {*DRAWN[tag], *PAINTS} | ({"width", "height", "class"} if tag == "svg" else set())
        assert {key.lower() for key in attributes} <= {key.lower() for key in allowed}
        assert not any("(" in (value or "") or ":" in (value or "") for value in attributes.values())
    assert seen.text == ""


@given(st.text(alphabet="<>/svgcirle \"'=&;0-9#!", max_size=120))
def test_any_answer_gives_known_elements_or_nothing(answer: str) -> None:
    assert all(tag in DRAWN for tag, _ in Seen(drawing(f"<svg>{answer}</svg>")).found)
