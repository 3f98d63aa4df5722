"""The grammar of transcripts. This is the only place where turns are parsed and written.

    (Turn 3) [USER]: content

    ~~~(end)~~~

A header is at the beginning of a line. One space separates it from the content, which ends at the last fence before
the next header. A fence is a separate line between two empty ones. Text between a fence and the next header belongs to
no turn. Lines end in LF, or in CRLF in files from elsewhere, and a byte-order mark may come first.

Reading is tolerant and loses nothing: the items of a text, joined in order, give the text again. Writing is strict. If
a line of the content looks like a header or a fence, a backslash is written before it, and one more if it already
begins with backslashes. Reading removes one backslash. So any content is read back unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce

from ssmprov.encoding import MARK
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
_PARTS = (r"\(", "T", "u", "r", "n", r"[ \t]+", r"[0-9]{1,18}", r"\)", r"[ \t]*", r"\[", _ROLE, r"\]")
_UNFINISHED = re.compile(_PARTS[0] + reduce(lambda rest, part: f"(?:{part}{rest})?", _PARTS[:0:-1], "") + r"\Z")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a text, from line `line` on: header, content as written (`body`), and fence (`tail`)."""

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
        """Whether it is open and ends in the half fence that asks for the rest."""
        return not self.tail and self.body.rstrip("\r\n").endswith(HALF_FENCE)

    @property
    def content(self) -> str:
        """The content, without escapes. In a turn whose fence has CRLF, all line ends were LF when it was written."""
        body = self.body.rstrip("\r\n").removesuffix(HALF_FENCE) if self.half else self.body
        if "\r\n" in self.tail:
            body = body.replace("\r\n", "\n")
        return _ESCAPED.sub("", body)


@dataclass(frozen=True, slots=True)
class Gap:
    """Text that belongs to no turn."""

    text: str
    line: int


Item = Turn | Gap


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something in line `line` that our own writer would not produce."""

    line: int
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.what}"


# -- writing


def check_role(role: str) -> str:
    """The role itself. Raises BadRequest if it could not be read back."""
    if not _GOOD_ROLE.match(role) or role != role.strip():
        raise BadRequest(
            f"{role[:60]!r} is not a valid role: use one line of 1 to 64 characters without brackets, such as USER"
        )
    return role


def header(number: int, role: str) -> str:
    """A turn's header, with the one space that separates it from the content."""
    return f"(Turn {number}) [{role}]: "


def begins_header(line: str) -> bool | None:
    """Whether a line begins with a header; None if it doesn't yet, but might when it grows."""
    return True if _HEADER.match(line) else None if _UNFINISHED.match(line) else False


def escape(content: str) -> str:
    """The content as it is written: lines that look like a header or a fence get a backslash."""
    return _TO_ESCAPE.sub("\\\\", content)


def turn(number: int, role: str, content: str) -> str:
    """A closed turn."""
    return header(number, role) + escape(content) + FENCE


def half_step(number: int, role: str, content: str) -> str:
    """A turn whose fence the server completes: the model only reads it."""
    return header(number, role) + escape(content) + HALF_FENCE


def full_step(number: int, role: str, content: str, reply_role: str) -> str:
    """A closed turn and the header of the next turn, which the model will write."""
    return turn(number, role, content) + header(number + 1, reply_role)


def next_turn(text: str) -> tuple[str, int]:
    """How a text goes on: what must precede the next turn's header, and that turn's number.

    An open turn is closed first, whatever of its fence is missing. Other text gets an empty line after it.
    """
    items = parse(text)
    number = 1 + max((item.number for item in items if isinstance(item, Turn)), default=0)
    if items and isinstance(items[-1], Turn) and not items[-1].closed:
        begun = next(n for n in range(len(FENCE), -1, -1) if text.endswith(FENCE[:n]))
        return FENCE[begun:], number
    return ("" if not text or text.endswith("\n") else "\n\n"), number


def quote(turn: Turn) -> str:
    """A turn as a Markdown block quote, with its header in the first line."""
    content = turn.content.replace("\r\n", "\n").removesuffix("\n")  # nothing else ends a line here
    lines = content.split("\n") if content else []
    return "\n".join([f"> (Turn {turn.number}) [{turn.role}]:", *(f"> {line}" for line in lines)])


# -- reading


class Transcript:
    """The items of a text that may grow. `append` only looks at the new text and the turn that it continues."""

    def __init__(self, text: str = "") -> None:
        self._settled: list[Item] = []
        self._tail = ""  # from the last header on, or everything if there is none yet
        self._line = 1  # where the tail begins
        self._header: re.Match[str] | None = None
        self._fences: list[re.Match[str]] = []
        self._seen = 0  # the beginning of the first line in the tail that may still change
        self._loose: list[Item] | None = None
        self.append(text)

    def append(self, text: str) -> int:
        """Add text. Returns the index of the first item that may have changed."""
        first = len(self._settled)
        self._loose = None
        self._tail += text
        if not self._settled and not self._seen and self._tail.startswith(MARK):
            self._seen = len(MARK)  # the first line begins after it
        if self._header is not None:
            self._header = _HEADER.match(self._tail)  # its space may only have arrived now
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
        """The turns and the gaps between them. Joined, they give the text."""
        if self._loose is None:
            last = _FENCE_LINE.match(self._tail, self._seen)
            self._loose = self._items(0, len(self._tail), [*self._fences, *([last] if last else [])])
        return [*self._settled, *self._loose]

    @property
    def turns(self) -> list[Turn]:
        return [item for item in self.items if isinstance(item, Turn)]

    def _next_header(self, begin: int) -> int | None:
        """Look through the new lines. Returns the position of the next header after the one at `begin`."""
        tail = self._tail
        while True:
            at = self._seen
            if (at > begin or self._header is None) and _HEADER.match(tail, at):
                return at
            end = tail.find("\n", at)
            if end < 0:
                return None  # the last line may still change; `items` takes it as it is
            if match := _FENCE_LINE.match(tail, at):
                self._fences.append(match)
            self._seen = end + 1

    def _items(self, begin: int, end: int, fences: list[re.Match[str]]) -> list[Item]:
        """The items of the tail from a header at `begin` to `end`."""
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
    """Where a fence with its empty lines begins and ends, or None if those empty lines are missing."""
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
    """The items of a text: its turns and the gaps between them."""
    return Transcript(text).items


def turns_of(text: str) -> list[Turn]:
    return Transcript(text).turns


def written(items: Iterable[Item]) -> str:
    """The text that the items were read from."""
    return "".join(item.text for item in items)


def oddities(items: Iterable[Item]) -> Iterator[Oddity]:
    """What our own writer would not produce, line by line."""
    numbers: dict[int, int] = {}
    highest = -1
    open_turn: Turn | None = None
    for item in items:
        if isinstance(item, Gap):
            if item.line == 1 and item.text.startswith(MARK):
                yield Oddity(1, "the file begins with a byte-order mark, which is skipped")
            if item.text.removeprefix(MARK).strip():
                yield Oddity(item.line, "text that belongs to no turn")
            continue
        if open_turn is not None:
            yield Oddity(open_turn.line, f"turn {open_turn.number} is not closed")
        open_turn = None if item.closed else item
        if item.number in numbers:
            yield Oddity(item.line, f"turn {item.number} already exists, in line {numbers[item.number]}")
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
            yield Oddity(turn.line + at, f"turn {turn.number} contains a fence that is read as text")
    if any(0xDC80 <= ord(character) <= 0xDCFF for character in turn.body if character > "\ud7ff"):
        yield Oddity(turn.line, f"turn {turn.number} contains bytes that are not UTF-8")
