"""Finds the checkpoint for each place in a transcript, and how to turn one context's transcript into another's.

A transcript contains what a context has read, step by step. Between the steps there may be lines that no context has
read: the bang lines of turns that were sent with one. A bang line comes directly before the text that was sent, after
the line feeds that end an open line before it:

    in the transcript    ...an open line \n\n !primed x\n (Turn 3) [USER]: ...
    read by the step                     \n\n             (Turn 3) [USER]: ...

The walk goes backwards from the end, step by step, and stops where the two differ. Whatever it has not reached is
unknown; nothing is guessed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from ssmprov import encoding
from ssmprov.ops import Step

_LEAD = b"\n\n"
_HEADER = b"(Turn "
_LONGEST_BANG = 1024
_BANG_WORDS = 3
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Point:
    """A place in a transcript, and the checkpoint that has read everything before it.

    `at` is in bytes; `object` is '' for the empty context. A bang line belongs to the turn that follows it, so the
    point before that turn is also before the bang line.
    """

    at: int
    object: str
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Alignment:
    """Points in ascending order. The last one is the head's, if the head agrees with the transcript.

    `differs`: the head has not read the end of the transcript. Then there are no points. `whole`: the transcript
    contains all that the context has read, so its first point is the empty context's. `unread` are the byte ranges of
    what no context reads in between: a byte-order mark and the bang lines that the walk has passed, in ascending order.
    """

    points: tuple[Point, ...]
    differs: bool
    whole: bool
    unread: tuple[tuple[int, int], ...] = ()

    def before(self, at: int) -> Point | None:
        """The last point at or before byte `at`."""
        index = bisect_right(self.points, at, key=_place)
        return self.points[index - 1] if index else None

    def exact(self, at: int) -> Point | None:
        """The last point at byte `at`: of steps without text, the newest."""
        point = self.before(at)
        return point if point is not None and point.at == at else None

    def of(self, object: str) -> Point | None:
        return next((point for point in self.points if point.object == object), None)


@dataclass(frozen=True, slots=True)
class Route:
    """Keep a transcript up to byte `at` and continue it with `tail`."""

    at: int
    tail: bytes


def _place(point: Point) -> int:
    return point.at


def align(transcript: bytes, steps: Sequence[Step], text: bytes) -> Alignment:
    """Match a lineage against a transcript.

    `steps` are newest first, as `log` gives them, all or the newest ones; `text` is all that the head has read, so
    that the steps' texts are its slices from the end.
    """
    mark = encoding.begin(transcript)
    if not steps:
        alike = len(transcript) == mark and not text
        return Alignment((Point(mark, ""),) if alike else (), differs=not alike, whole=alike)
    points: list[Point] = []
    unread: list[tuple[int, int]] = []
    end, left = len(transcript), len(text)
    matched = len(transcript) == mark
    for index, step in enumerate(steps):
        points.append(Point(end, step.object, step.tokens))
        if step.step_bytes == 0:
            continue
        start = left - step.step_bytes
        older = steps[index + 1].step_bytes if index + 1 < len(steps) else 0
        found = _place_of(transcript, end, text, start, left, older) if start >= 0 else None
        if found is None:
            break
        end, bang = found
        if bang is not None:
            unread.append(bang)
        left = start
        matched = True
    else:
        oldest = steps[-1]
        opaque = oldest.kind != "turn" and oldest.step_bytes == 0  # nobody knows what it has read
        if oldest.parent or (left == 0 and not opaque):
            points.append(Point(end, oldest.parent, oldest.tokens - oldest.step_tokens))
    if not matched:
        return Alignment((), differs=True, whole=False)
    whole = points[-1].object == ""
    if 0 < mark <= end:  # else the context has read it, too
        unread.append((0, mark))
    return Alignment(tuple(reversed(points)), differs=False, whole=whole, unread=tuple(reversed(unread)))


def common(transcript: bytes, steps: Sequence[Step], text: bytes) -> list[Point]:
    """The places at which both agree, from the beginning: after each step whose text the transcript continues with.

    `steps` and `text` are as in `align`. If the last point is at the end of the transcript and is the newest step's,
    the context has read the whole transcript and nothing else. The list is empty if not even the beginning agrees.
    """
    offset = len(text) - sum(step.step_bytes for step in steps)  # what steps too old to be listed have read
    begin = 0 if encoding.begin(text) else encoding.begin(transcript)  # a context may have read a mark as text
    if not transcript.startswith(text[:offset], begin):
        return []
    at = begin + offset
    oldest = steps[-1] if steps else None
    points = [Point(at, oldest.parent if oldest else "", oldest.tokens - oldest.step_tokens if oldest else 0)]
    for step in reversed(steps):
        end = _end_of(transcript, at, text[offset : offset + step.step_bytes])
        if end is None:
            break
        at, offset = end, offset + step.step_bytes
        points.append(Point(at, step.object, step.tokens))
    return points


def _end_of(transcript: bytes, at: int, said: bytes) -> int | None:
    """Where the text of a step that begins at byte `at` ends, if it is there: as it is, or with a bang line."""
    if transcript.startswith(said, at):
        return at + len(said)
    for lead in (b"", _LEAD):
        if not (said.startswith(lead) and transcript.startswith(lead, at)):
            continue
        end = transcript.find(b"\n", at + len(lead), at + len(lead) + _LONGEST_BANG) + 1
        if end and _bang_line(transcript, end) == at + len(lead) and transcript.startswith(said[len(lead) :], end):
            return end + len(said) - len(lead)
    return None


def as_read(transcript: bytes, alignment: Alignment, begin: int, end: int) -> bytes:
    """The part of bytes [begin, end) that a context reads: all but the mark and bang lines that the walk has passed."""
    parts = []
    for start, stop in alignment.unread:
        if begin < stop and start < end:
            parts.append(transcript[begin:start])
            begin = min(stop, end)
    parts.append(transcript[begin:end])
    return b"".join(parts)


def route(transcript: bytes, alignment: Alignment, steps: Sequence[Step], text: bytes, other_text: bytes) -> Route:
    """How to turn the transcript into that of another context, whose whole text is `other_text`.

    It is kept up to the last aligned place that both have read. If there is none, all of it is replaced.
    """
    offsets: dict[str, int] = {}
    left = len(text)
    for step in steps:
        offsets.setdefault(step.object, left)
        left -= step.step_bytes
    if steps:
        offsets.setdefault(steps[-1].parent, left)
    shared = _shared(text, other_text)
    for point in reversed(alignment.points):
        offset = offsets.get(point.object, 0)
        cut = _within_character(transcript, point.at) or _within_character(other_text, offset)
        if 0 < offset <= shared and not cut:
            return Route(point.at, other_text[offset:])
    return Route(0, other_text)


def _place_of(
    transcript: bytes, end: int, text: bytes, start: int, stop: int, older: int
) -> tuple[int, tuple[int, int] | None] | None:
    """Where the step's text, text[start:stop], begins in transcript[:end], and the bang line that belongs to it.

    `older` is the length of the previous step's text. None if the transcript says something else.
    """
    said = text[start:stop]
    begin = end - len(said)
    if begin >= 0 and transcript.startswith(said, begin):
        line = _bang_line(transcript, begin)
        if line is None or text.endswith(
            transcript[line:begin], 0, start
        ):  # the context has read it, so it is not a bang line
            return begin, None
        if said.startswith(_HEADER):
            return line, (line, begin)
        if older and line >= older and transcript.startswith(text[start - older : start], line - older):
            return line, (line, begin)  # a text that was sent as it is
        return begin, None
    if not said.startswith(_LEAD + _HEADER):
        return None
    begin += len(_LEAD)
    if begin < 0 or not transcript.startswith(said[len(_LEAD) :], begin):
        return None
    line = _bang_line(transcript, begin)
    if line is None or not transcript.endswith(_LEAD, 0, line):
        return None
    return line - len(_LEAD), (line, begin)


def _bang_line(transcript: bytes, end: int) -> int | None:
    """The start of the line that ends at byte `end`, if it is a bang line."""
    if end == 0 or transcript[end - 1] != 0x0A:
        return None
    floor = max(0, end - _LONGEST_BANG)
    begin = transcript.rfind(b"\n", floor, end - 1) + 1
    if begin == 0 and floor > 0:
        return None
    line = transcript[begin:end]
    return begin if line.startswith(b"!") and len(line[1:].split()) <= _BANG_WORDS else None


def _shared(one: bytes, other: bytes) -> int:
    """The length in bytes of the common prefix of two texts."""
    limit = min(len(one), len(other))
    at = 0
    while at < limit and one[at : at + _CHUNK] == other[at : at + _CHUNK]:
        at += _CHUNK
    at = min(at, limit)
    window = range(1, min(_CHUNK, limit - at) + 1)
    return at + bisect_left(window, True, key=lambda n: one[at : at + n] != other[at : at + n])


def _within_character(text: bytes, at: int) -> bool:
    """Whether byte `at` is in the middle of a UTF-8 character."""
    return at < len(text) and 0x80 <= text[at] <= 0xBF
