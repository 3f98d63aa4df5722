"""Checkpoints are laid beside a transcript exactly, bang lines or not, and never where they do not belong."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssmprov.ops import Step
from ssmprov.transcript import FENCE, full_step, half_step
from transcripts.alignment import Alignment, Point, Route, align, as_read, common, route

HALF_DONE = "end)~~~\n\n"
TURN = "(Turn 1) [USER]: hello\n\n~~~(end)~~~\n\n"


@dataclass
class Story:
    """A transcript as PIPE writes it, and the lineage that has read it."""

    branch: str = "a"
    transcript: bytes = b""
    text: bytes = b""
    steps: list[Step] = field(default_factory=list)
    places: list[int] = field(default_factory=lambda: [0])
    offsets: list[int] = field(default_factory=lambda: [0])

    def send(self, text: str, reply: str = "", bang: str = "") -> Story:
        lead = "\n\n" if text.startswith("(Turn ") and self.transcript and not self.transcript.endswith(b"\n") else ""
        line = f"!{bang}\n" if bang else ""
        self.transcript += (lead + line + text + reply).encode()
        self.read(lead + text + reply)
        self.places.append(len(self.transcript))
        return self

    def read(self, text: str) -> None:
        said = text.encode()
        self.text += said
        parent = self.steps[0].object if self.steps else ""
        number = len(self.steps) + 1
        step = Step(
            object=f"{self.branch}{number}", parent=parent, tokens=10 * number, step_tokens=10, step_bytes=len(said)
        )
        self.steps.insert(0, step)
        self.offsets.append(len(self.text))

    def fork(self, back: int, branch: str) -> Story:
        """Another branch from `back` steps before the head, with a transcript of its own."""
        kept = len(self.steps) - back
        return Story(
            branch,
            self.transcript[: self.places[kept]],
            self.text[: self.offsets[kept]],
            self.steps[back:],
            self.places[: kept + 1],
            self.offsets[: kept + 1],
        )

    def align(self, newest: int | None = None) -> Alignment:
        return align(self.transcript, self.steps[:newest], self.text)

    def points(self) -> list[Point]:
        objects = ["", *(step.object for step in reversed(self.steps))]
        return [Point(at, name, 10 * n) for n, (at, name) in enumerate(zip(self.places, objects, strict=True))]


def story() -> Story:
    """A half step, a full step with a bang line, a full step behind an open line."""
    told = Story()
    told.send(half_step(1, "USER", "hello"), HALF_DONE)
    told.send(full_step(2, "USER", "go on", "INTERFACE"), "well, where", bang="primed standard")
    return told.send(full_step(4, "USER", "stop", "INTERFACE"), "yes" + FENCE, bang="primed")


TEXTS = st.text("ab!\n é🦀(~", max_size=8)
BANGS = st.sampled_from(["", "", "primed", "primed standard live", "!x", "a b"])


@st.composite
def stories(draw: st.DrawFn, start: Story | None = None) -> Story:
    told = start if start is not None else Story()
    for _ in range(draw(st.integers(0, 5))):
        number = len(told.steps) * 2 + 1
        match draw(st.sampled_from(["half", "full", "raw"])):
            case "half":
                told.send(half_step(number, "USER", draw(TEXTS)), HALF_DONE, draw(BANGS))
            case "full":
                text = full_step(number, "USER", draw(TEXTS), "BOT")
                told.send(text, draw(TEXTS) + draw(st.sampled_from(["", FENCE])), draw(BANGS))
            case _:
                told.send(draw(TEXTS), draw(TEXTS))
    return told


@given(stories())
def test_every_step_stands_where_the_turn_was_sent(told: Story) -> None:
    found = told.align()
    assert list(found.points) == told.points()
    assert (found.differs, found.whole) == (False, True)
    for point, offset in zip(found.points, told.offsets, strict=True):
        assert as_read(told.transcript, found, 0, point.at) == told.text[:offset]
        assert as_read(told.transcript, found, point.at, len(told.transcript)) == told.text[offset:]


@given(stories(), st.integers(1, 5))
def test_a_cut_lineage_gives_the_newest_points_of_the_whole(told: Story, newest: int) -> None:
    assume(any(step.step_bytes for step in told.steps[:newest]) or not told.text)  # else nothing is known to agree
    found = told.align(newest)
    expected = told.points()[-newest - 1 :]
    assert list(found.points) == expected
    assert found.whole == (expected[0].object == "")


@given(st.data())
def test_a_route_leads_to_the_others_text_and_back(data: st.DataObject) -> None:
    told = data.draw(stories())
    other = data.draw(stories(told.fork(data.draw(st.integers(0, len(told.steps))), "b")))
    there = route(told.transcript, told.align(), told.steps, told.text, other.text)
    kept = as_read(told.transcript, told.align(), 0, there.at)
    assert kept + there.tail == other.text
    kept.decode()
    there.tail.decode()
    assert there.at in told.places
    shared = [n for n, offset in enumerate(told.offsets) if other.text.startswith(told.text[:offset])]
    assert there.at == told.places[shared[-1]]

    arrived = told.transcript[: there.at] + there.tail
    back = route(arrived, align(arrived, other.steps, other.text), other.steps, other.text, told.text)
    assert as_read(arrived, align(arrived, other.steps, other.text), 0, back.at) + back.tail == told.text


@given(stories(), st.text("ab\n!", min_size=1, max_size=9))
def test_what_is_written_behind_the_head_leaves_no_point(told: Story, more: str) -> None:
    transcript = told.transcript + more.encode() + b"\x00"
    found = align(transcript, told.steps, told.text)
    assert (found.points, found.differs, found.whole) == ((), True, False)
    assert route(transcript, found, told.steps, told.text, b"other") == Route(0, b"other")


@given(st.binary(max_size=60), stories(), st.binary(max_size=60))
def test_points_are_only_where_the_transcript_says_what_was_read(before: bytes, told: Story, text: bytes) -> None:
    for said in (told.text, text):
        found = align(before + told.transcript, told.steps, said)
        newest_text = iter(reversed(found.points[:-1]))
        left = len(said)
        for step in told.steps:
            point = next(newest_text, None)
            if point is None:
                break
            left -= step.step_bytes
            assert as_read(before + told.transcript, found, point.at, 1 << 30) == said[left:]


def test_a_bang_line_belongs_to_the_turn_after_it() -> None:
    told = story()
    found = told.align()
    first, second, third = (told.transcript.index(f"(Turn {n})".encode()) for n in (1, 2, 4))
    assert found.exact(first) == Point(0, "")
    assert found.before(second) == Point(second - len("!primed standard\n"), "a1", 10)
    assert found.before(third) == Point(third - len("\n\n!primed\n"), "a2", 20)
    assert found.exact(second) is None
    assert found.exact(len(told.transcript)) == found.of("a3") == Point(len(told.transcript), "a3", 30)
    assert found.of("b1") is None


def test_nothing_stands_before_the_first_point() -> None:
    told = story()
    found = align(b"Notes.\n" + told.transcript, told.steps, told.text)
    assert found.whole
    assert found.before(6) is None
    assert found.before(7) == Point(7, "")


def test_a_primed_beginning_that_the_transcript_does_not_hold_ends_the_walk() -> None:
    told = Story()
    told.read("a primer\n\n")
    told.places = [0, 0]
    told.send(TURN, bang="primed")
    found = told.align()
    assert found.points == (Point(0, "a1", 10), Point(len(told.transcript), "a2", 20))
    assert not found.whole
    assert route(told.transcript, found, told.steps, told.text, told.text[:5]) == Route(0, told.text[:5])
    shared = told.offsets[1]
    there = route(told.transcript, found, told.steps, told.text, told.text[:shared] + b"other")
    assert there == Route(0, b"other")


def test_a_line_with_an_exclamation_mark_that_was_read_is_no_bang_line() -> None:
    told = Story().send("Say\n", "!wow\n").send(TURN)
    assert list(told.align().points) == told.points()
    assert told.align().unread == ()


@pytest.mark.parametrize(
    "line", ["!four words in all\n", "primed\n", " !primed\n", "!primed\n\n", "!" + "x" * 2000 + "\n"]
)
def test_other_lines_are_never_passed_over(line: str) -> None:
    first, second = TURN.encode(), TURN.replace("1", "2").encode()
    told = Story().send(TURN).send(second.decode())
    found = align(first + line.encode() + second, told.steps, told.text)
    assert found.points == (
        Point(len(first) + len(line), "a1", 10),
        Point(len(first) + len(line) + len(second), "a2", 20),
    )


def test_a_line_as_long_as_no_bang_line_is_not_passed_over_at_the_beginning_either() -> None:
    line = b"!" + b"x" * 2000 + b"\n"
    told = Story().send(TURN)
    assert align(line + told.transcript, told.steps, told.text).points[0] == Point(len(line), "")


def test_a_bang_line_before_a_text_sent_as_it_is() -> None:
    told = Story().send("once\n").send("upon a time", bang="primed")
    assert list(told.align().points) == told.points()
    alone = Story().send("upon a time", bang="primed")
    assert alone.align().points[0] == Point(len("!primed\n"), "")


def test_line_feeds_before_a_bang_line_are_passed_over_only_where_they_were_read() -> None:
    told = Story().send("an open line").send(TURN, bang="primed")
    near = told.transcript.replace(b"\n\n!primed", b"\n!primed")
    found = align(near, told.steps, told.text)
    assert found.differs
    assert found.points == ()


def test_an_empty_transcript_goes_with_any_head() -> None:
    told = story()
    assert align(b"", told.steps, told.text) == Alignment((Point(0, "a3", 30),), differs=False, whole=False)
    assert align(b"", (), b"") == Alignment((Point(0, ""),), differs=False, whole=True)


def test_without_a_head_a_text_agrees_with_nothing() -> None:
    assert align(b"x", (), b"") == Alignment((), differs=True, whole=False)


def test_steps_without_text_stand_where_the_one_before_stands() -> None:
    steps = [
        Step(object="c", parent="b", tokens=12, step_tokens=2, step_bytes=0),
        Step(object="b", parent="a", tokens=10, step_tokens=10, step_bytes=2),
        Step(object="a", parent="", tokens=0, step_tokens=0, step_bytes=0),
    ]
    found = align(b"hi", steps, b"hi")
    assert found.points == (Point(0, ""), Point(0, "a"), Point(2, "b", 10), Point(2, "c", 12))
    assert found.exact(0) == Point(0, "a")
    assert found.exact(2) == Point(2, "c", 12)


def test_a_head_without_any_text_does_not_agree_with_one() -> None:
    assert align(b"hi", [Step(object="a", parent="", tokens=0, step_tokens=0, step_bytes=0)], b"") == Alignment(
        (), differs=True, whole=False
    )


def test_below_an_opaque_root_is_no_empty_context() -> None:
    root = Step(object="a", parent="", tokens=500, step_tokens=500, step_bytes=0, kind="import")
    assert align(b"", [root], b"").points == (Point(0, "a", 500),)
    behind = Step(object="b", parent="a", tokens=510, step_tokens=10, step_bytes=5)
    assert align(b"", [behind, root], b"").points == (Point(0, "b", 510),)
    assert align(b"hello", [behind, root], b"").points == ()


def test_a_route_cuts_no_character() -> None:
    steps = [
        Step(object="b", parent="a", tokens=3, step_tokens=1, step_bytes=1),
        Step(object="a", parent="", tokens=2, step_tokens=2, step_bytes=3),
    ]
    text = "éé".encode()
    found = align(text, steps, text)
    assert [point.at for point in found.points] == [0, 3, 4]
    assert route(text, found, steps, text, "éè".encode()) == Route(0, "éè".encode())
    assert route(text, found, steps, text, "ééé".encode()) == Route(4, "é".encode())


def test_a_route_does_not_go_on_within_a_character_that_the_head_has_half_read() -> None:
    steps = [
        Step(object="b", parent="a", tokens=3, step_tokens=1, step_bytes=1),
        Step(object="a", parent="", tokens=2, step_tokens=2, step_bytes=2),
    ]
    text = "éé".encode()[:3]
    there = route(text, align(text, steps, text), steps, text, "éé".encode())
    assert there == Route(2, "é".encode())


def test_where_nothing_is_shared_nothing_is_kept() -> None:
    told = story()
    transcript = b"Notes.\n" + told.transcript
    found = align(transcript, told.steps, told.text)
    assert route(transcript, found, told.steps, told.text, b"other") == Route(0, b"other")
    assert route(transcript, found, told.steps, told.text, b"") == Route(0, b"")


def test_a_route_through_long_texts_parts_at_the_right_step() -> None:
    told = Story()
    for number in range(300):
        told.send(half_step(number, "USER", "x" * 500), HALF_DONE)
    offset = told.offsets[150] + 100
    other = told.text[:offset] + b"!" + told.text[offset + 1 :]
    there = route(told.transcript, told.align(), told.steps, told.text, other)
    assert there == Route(told.places[150], other[told.offsets[150] :])


def test_five_thousand_steps_are_laid_in_place_quickly() -> None:
    told = Story()
    bodies = [full_step(2 * n, "USER", "word " * 195, "BOT") + "yes" + FENCE for n in range(5000)]
    parts = [f"!primed standard\n{body}" if n % 7 == 3 else body for n, body in enumerate(bodies)]
    transcript, text = "".join(parts).encode(), "".join(bodies).encode()
    sizes = [len(body) for body in bodies]
    told.steps = [
        Step(object=f"a{n}", parent=f"a{n - 1}" if n else "", tokens=n, step_tokens=1, step_bytes=sizes[n])
        for n in reversed(range(5000))
    ]
    begun = time.perf_counter()
    found = align(transcript, told.steps, text)
    spent = time.perf_counter() - begun
    assert len(found.points) == 5001
    assert found.whole
    assert len(transcript) > 5_000_000
    assert spent < 1  # 20 ms on a quiet machine; quadratic work would take minutes


def test_a_byte_order_mark_is_not_part_of_what_a_context_reads() -> None:
    story = Story().send(TURN).send("(Turn 2) [USER]: more" + FENCE)
    marked = b"\xef\xbb\xbf" + story.transcript
    found = align(marked, story.steps, story.text)
    assert found.whole
    assert [point.at for point in found.points] == [3 + at for at in story.places]
    assert as_read(marked, found, 0, len(marked)) == story.text
    assert [point.at for point in common(marked, story.steps, story.text)] == [3 + at for at in story.places]
    assert align(b"\xef\xbb\xbf", [], b"").whole


def test_a_mark_that_the_context_has_read_is_part_of_it() -> None:
    story = Story().send("\ufeff" + TURN)
    found = align(story.transcript, story.steps, story.text)
    assert found.whole
    assert as_read(story.transcript, found, 0, len(story.transcript)) == story.text
