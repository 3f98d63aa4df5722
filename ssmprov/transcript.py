"""The grammar of transcripts: the only place where turns are taken apart and put together.

    (Turn 3) [USER]: content

    ~~~(end)~~~

A header stands at the beginning of a line. One space separates it from the content, which ends at the last fence
before the next header; a fence is a line of its own between two empty ones. What stands between a fence and the next
header belongs to no turn. Lines end in LF, or CRLF in files that came from elsewhere.

Reading is tolerant and loses nothing: the items of a text, one after the other, are the text. Writing is strict. A
content that holds a line like a header or a fence is written with a backslash before it, and one that already
has backslashes there gets one more; reading takes one away. So any content comes back as it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ssmprov.errors import BadRequest

FENCE = "\n\n~~~(end)~~~\n\n"
HALF_FENCE = "\n\n~~~("
FENCE_REST = "end)~~~\n\n"

_ROLE = r"[^\[\]\r\n]{1,64}"
_HEADER = re.compile(rf"\(Turn[ \t]+([0-9]{{1,18}})\)[ \t]*\[({_ROLE})\]:( ?)")
_FENCE_LINE = re.compile(r"~~~\(end\)~~~([ \t]*)(?=\r?\n|\r?\Z)")
_MARK = rf"(?:\(Turn[ \t]+[0-9]{{1,18}}\)[ \t]*\[{_ROLE}\]:|~~~\(end\)~~~[ \t]*\r?(?:\n|\Z))"
_TO_ESCAPE = re.compile(rf"(?<=\n)(?=\\*{_MARK})")
_ESCAPED = re.compile(rf"(?<=\n)\\(?=\\*{_MARK})")
_GOOD_ROLE = re.compile(rf"{_ROLE}\Z")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn as it stands in its text from `line` on: header, content (`body`, as written), fence (`tail`)."""

    number: int
    role: str
    head: str
    body: str
    tail: str
    line: int

    @property
    def text(self) -> str:
        return self.head + self.body + self.tail

    @property
    def closed(self) -> bool:
        return bool(self.tail)

    @property
    def half(self) -> bool:
        """Whether it is open, and its end is the half fence that asks for the rest."""
        return not self.tail and self.body.rstrip("\r\n").endswith(HALF_FENCE)

    @property
    def content(self) -> str:
        """What the turn says."""
        body = self.body.rstrip("\r\n").removesuffix(HALF_FENCE) if self.half else self.body
        return _ESCAPED.sub("", body)


@dataclass(frozen=True, slots=True)
class Gap:
    """Text that belongs to no turn."""

    text: str
    line: int


Item = Turn | Gap


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something in line `line` that the writer would not have written."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


# -- writing


def check_role(role: str) -> str:
    """The role itself. Raises BadRequest for what could not be read back."""
    if not _GOOD_ROLE.match(role) or role != role.strip():
        raise BadRequest(
            f"{role[:60]!r} is no role: write one line of 1 to 64 characters without brackets, such as USER"
        )
    return role


def header(number: int, role: str) -> str:
    """A turn's header, with the one space that separates it from the content."""
    return f"(Turn {number}) [{role}]: "


def escape(content: str) -> str:
    """A content as it is written: lines that look like a header or a fence get a backslash."""
    return _TO_ESCAPE.sub("\\\\", content)


def turn(number: int, role: str, content: str) -> str:
    """A closed turn."""
    return header(number, role) + escape(content) + FENCE


def half_step(number: int, role: str, content: str) -> str:
    """A turn whose fence the server completes: it is read, and nothing is asked of the model."""
    return header(number, role) + escape(content) + HALF_FENCE


def full_step(number: int, role: str, content: str, reply_role: str) -> str:
    """A whole turn and the header of the next one, which the model is to write."""
    return turn(number, role, content) + header(number + 1, reply_role)


def quote(turn: Turn) -> str:
    """A turn as a Markdown block quote, its header in the first line."""
    content = turn.content.replace("\r\n", "\n").removesuffix("\n")  # no other character ends a line here
    lines = content.split("\n") if content else []
    return "\n".join([f"> (Turn {turn.number}) [{turn.role}]:", *(f"> {line}" for line in lines)])


# -- reading


class Transcript:
    """The items of a text that may grow: `append` costs what was appended, and the turn that it goes on."""

    def __init__(self, text: str = "") -> None:
        self._settled: list[Item] = []
        self._tail = ""  # from the last header on; before the first one, all
        self._line = 1  # of the tail's beginning
        self._header: re.Match[str] | None = None
        self._fences: list[re.Match[str]] = []
        self._seen = 0  # the beginning of the first line in the tail that may still change
        self._loose: list[Item] | None = None
        self.append(text)

    def append(self, text: str) -> int:
        """Take more text; the index of the first item that may have changed."""
        first = len(self._settled)
        self._loose = None
        self._tail += text
        if self._header is not None:
            self._header = _HEADER.match(self._tail)  # its space may have come only now
        begin = 0
        while (found := self._next_header(begin)) is not None:
            self._settled += self._items(begin, found, self._fences)
            self._line += self._tail.count("\n", begin, found)
            begin = found
            self._header = _HEADER.match(self._tail, begin)
            self._fences = []
        if begin:
            self._tail = self._tail[begin:]
            self._header = _HEADER.match(self._tail)
            self._fences = [_FENCE_LINE.match(self._tail, fence.start() - begin) for fence in self._fences]  # type: ignore[misc]
            self._seen -= begin
        return first

    @property
    def items(self) -> list[Item]:
        """Turns and what stands between them; together they are the text."""
        if self._loose is None:
            last = _FENCE_LINE.match(self._tail, self._seen)
            self._loose = self._items(0, len(self._tail), [*self._fences, *([last] if last else [])])
        return [*self._settled, *self._loose]

    @property
    def turns(self) -> list[Turn]:
        return [item for item in self.items if isinstance(item, Turn)]

    def _next_header(self, begin: int) -> int | None:
        """Look through the lines that are new; where the header after the one at `begin` stands."""
        tail = self._tail
        while True:
            at = self._seen
            if (at > begin or self._header is None) and _HEADER.match(tail, at):
                return at
            end = tail.find("\n", at)
            if end < 0:
                return None  # the last line may still become anything; `items` looks at it as it is
            if match := _FENCE_LINE.match(tail, at):
                self._fences.append(match)
            self._seen = end + 1

    def _items(self, begin: int, end: int, fences: list[re.Match[str]]) -> list[Item]:
        """What the tail holds from a header at `begin` to `end`."""
        text, header = self._tail, self._header
        if header is None:
            return [Gap(text[begin:end], self._line)] if end > begin else []
        number, role, head = int(header[1]), header[2], header.end()
        for fence in reversed(fences):
            if (span := _fence_span(text, fence, head, end)) is not None:
                start, stop = span
                turn = Turn(number, role, text[begin:head], text[head:start], text[start:stop], self._line)
                line = self._line + text.count("\n", begin, stop)
                return [turn, Gap(text[stop:end], line)] if stop < end else [turn]
        return [Turn(number, role, text[begin:head], text[head:end], "", self._line)]


def _fence_span(text: str, fence: re.Match[str], head: int, limit: int) -> tuple[int, int] | None:
    """Where a fence with its empty lines begins and ends; None for one that stands too close to other text."""
    begin = fence.start()
    for blank in ("\r\n\r\n", "\n\n"):
        if text.endswith(blank, head, begin):
            begin -= len(blank)
            break
    else:
        return None
    end, lines = fence.end(), 0
    for _ in range(2):
        step = 2 if text.startswith("\r\n", end, limit) else int(text.startswith("\n", end, limit))
        end += step
        lines += step > 0
    return (begin, end) if lines == 2 or end == limit else None


def parse(text: str) -> list[Item]:
    """The items of a text: turns, and what stands between them."""
    return Transcript(text).items


def turns_of(text: str) -> list[Turn]:
    return Transcript(text).turns


def written(items: Iterable[Item]) -> str:
    """The text that the items were read from."""
    return "".join(item.text for item in items)


def oddities(items: Iterable[Item]) -> Iterator[Oddity]:
    """What the writer would not have written, by line."""
    numbers: dict[int, int] = {}
    highest = -1
    open_turn: Turn | None = None
    for item in items:
        if isinstance(item, Gap):
            if item.text.strip():
                yield Oddity(item.line, "text that belongs to no turn")
            continue
        if open_turn is not None:
            yield Oddity(open_turn.line, f"turn {open_turn.number} is not closed")
        open_turn = None if item.closed else item
        if item.number in numbers:
            yield Oddity(item.line, f"turn {item.number} was there before, in line {numbers[item.number]}")
        elif item.number < highest:
            yield Oddity(item.line, f"turn {item.number} comes after turn {highest}")
        numbers.setdefault(item.number, item.line)
        highest = max(highest, item.number)
        if item.head != header(item.number, item.role):
            yield Oddity(item.line, f"its header should be {header(item.number, item.role)!r}")
        yield from _odd_lines(item)
    if open_turn is not None:
        yield Oddity(open_turn.line, f"turn {open_turn.number} is open")


def _odd_lines(turn: Turn) -> Iterator[Oddity]:
    line = turn.line + turn.body.count("\n")
    if turn.tail and turn.tail != FENCE:
        what = "has CRLF line ends" if "\r" in turn.tail else "has spaces after it"
        if "\r" not in turn.tail and turn.tail.rstrip("\n") == FENCE.rstrip("\n"):
            what = "has no empty line after it"
        yield Oddity(line + 2, f"the fence of turn {turn.number} {what}")
    for at, text in enumerate(turn.body.split("\n")):
        if at and _FENCE_LINE.match(text):
            yield Oddity(turn.line + at, f"a fence within turn {turn.number} is read as text")
    if any(0xDC80 <= ord(character) <= 0xDCFF for character in turn.body if character > "\ud7ff"):
        yield Oddity(turn.line, f"turn {turn.number} holds bytes that are no UTF-8")
