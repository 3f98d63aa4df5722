"""Where a header begins in a reply, however the reply is split into pieces."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from ssmprov.transcript import FENCE, begins_header, header, turns_of
from workers.stops import Headers

HEADER = re.compile(rb"^\(Turn[ \t]+[0-9]{1,18}\)[ \t]*\[[^\[\]\r\n]{1,64}\]:", re.MULTILINE)
PIECES = st.lists(
    st.sampled_from(
        ["(", "Turn", " ", "12", ")", "[", "A", "é", "]", ":", "\n", "\r\n", "\\", "(Turn 1) [A]:", "\n(Turn"]
    ),
    max_size=16,
)


def found(text: bytes, before: bytes, cuts: list[int]) -> int | None:
    """Where the first header begins, looking at one piece after another."""
    stops, since, reply = Headers(before), None, bytearray()
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        match = stops.look(reply, text[start:end], since)
        if match is not None and match.whole:
            return match.at
        since = None if match is None else match.at
        reply += text[start:end]
        assert since is None or since <= len(reply)
    return None


@settings(max_examples=300, deadline=None)
@given(pieces=PIECES, before=st.sampled_from(["text", "text\n", FENCE, ""]), data=st.data())
def test_the_first_header_is_found_however_the_text_is_split(
    pieces: list[str], before: str, data: st.DataObject
) -> None:
    text = "".join(pieces).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    wanted = [match.start() for match in HEADER.finditer(b"|" * (before != "text\n") + text)]
    expected = wanted[0] - (before != "text\n") if wanted else None
    assert found(text, before.encode(), cuts) == expected


def test_what_a_writer_writes_is_a_header_from_its_last_byte_on() -> None:
    line = header(7, "INTERFACE")
    assert [begins_header(line[:length]) for length in range(1, len(line) + 1)] == [
        *([None] * (len(line) - 2)),
        True,
        True,
    ]
    assert begins_header("(Turn seven") is False
    assert begins_header("") is False
    assert len(turns_of(line)) == 1
