"""Compares two transcripts turn by turn, and the words of turns that differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import zip_longest

from ssmprov.transcript import Item, Turn, parse

MOST_ITEMS = 4000
"""With more differing items than this, items are compared by position."""
MOST_WORDS = 4000
"""In a turn with more words than this, the whole turn is marked instead of single words."""
MOST_TEXT = 400_000
"""After this many characters of differing turns, no single words are marked."""

_WORD = re.compile(r"\w+|\s+|[^\w\s]")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Alike:
    """A run of items that both texts contain."""

    items: tuple[Item, ...]

    @property
    def turns(self) -> int:
        return sum(isinstance(item, Turn) for item in self.items)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two items shown side by side. One is None if that side has no item.

    `left_spans` and `right_spans` mark the characters of `said_by` that the other side does not have.
    """

    left: Item | None
    right: Item | None
    left_spans: tuple[Span, ...] = ()
    right_spans: tuple[Span, ...] = ()


Block = Alike | Pair


def said_by(item: Item) -> str:
    """The compared text of an item: a turn's content, or text outside of turns."""
    return item.content if isinstance(item, Turn) else item.text


def title_of(item: Item) -> str:
    if not isinstance(item, Turn):
        return "Between turns"
    return f"Turn {item.number} {item.role}" + ("" if item.closed else " (open)")


def compare(left: str, right: str) -> list[Block]:
    """Both texts as blocks that contain all their items in order."""
    one, other = parse(left), parse(right)
    texts, others = [item.text for item in one], [item.text for item in other]
    start = _shared(texts, others)
    end = _shared(texts[: start - 1 if start else None : -1], others[: start - 1 if start else None : -1])
    blocks: list[Block] = [Alike(tuple(one[:start]))] if start else []
    one_stop, other_stop = len(one) - end, len(other) - end
    blocks += _Middle().blocks(one[start:one_stop], other[start:other_stop])
    return [*blocks, Alike(tuple(one[one_stop:]))] if end else blocks


class _Middle:
    """Compares the items between the first and the last difference, and counts the characters compared."""

    def __init__(self) -> None:
        self._spent = 0

    def blocks(self, one: Sequence[Item], other: Sequence[Item]) -> Iterator[Block]:
        if len(one) + len(other) > MOST_ITEMS:
            yield from self._beside(one, other)
            return
        matcher = SequenceMatcher(None, [item.text for item in one], [item.text for item in other])
        for what, a, b, c, d in matcher.get_opcodes():
            if what == "equal":
                yield Alike(tuple(one[a:b]))
            else:
                yield from self._beside(one[a:b], other[c:d])

    def _beside(self, one: Sequence[Item], other: Sequence[Item]) -> Iterator[Block]:
        """Pair items by position. If one side has more, the other side of those pairs is empty."""
        for left, right in zip_longest(one, other):
            if left is None or right is None:
                yield Pair(left, right)
                continue
            if left.text == right.text:  # too common for the matcher, e.g. the same bang line before each turn
                yield Alike((left,))
                continue
            said, said_there = said_by(left), said_by(right)
            self._spent += len(said) + len(said_there)
            yield Pair(left, right, *word_spans(said, said_there, MOST_WORDS if self._spent < MOST_TEXT else 0))


def word_spans(left: str, right: str, most: int = MOST_WORDS) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """The spans of each text that the other does not have, by whole words; one span if there are over `most` words."""
    words, others = _WORD.findall(left), _WORD.findall(right)
    start = _shared(words, others)
    end = _shared(words[start:][::-1], others[start:][::-1])
    one, other = words[start : len(words) - end], others[start : len(others) - end]
    at, there = len("".join(words[:start])), len("".join(others[:start]))
    if len(one) + len(other) > most:
        return _spans([(at, at + len("".join(one)))]), _spans([(there, there + len("".join(other)))])
    places, other_places = _places(one, at), _places(other, there)
    matcher = SequenceMatcher(None, one, other)
    changed = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    return (
        _spans([(places[a], places[b]) for _, a, b, _, _ in changed]),
        _spans([(other_places[c], other_places[d]) for _, _, _, c, d in changed]),
    )


def _places(words: Sequence[str], at: int) -> list[int]:
    """The start of each word, and the end of the last one."""
    places = [at]
    for word in words:
        places.append(places[-1] + len(word))
    return places


def _spans(found: Sequence[Span]) -> tuple[Span, ...]:
    return tuple((begin, end) for begin, end in found if end > begin)


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the common beginning of two sequences."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
