"""The items of a text that grows at its end or is cut there. Unchanged items are not parsed again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

from ssmprov.transcript import Item, Transcript, Turn


class Growing:
    """Items of a text. `append` and `cut` only parse what they change, and copy the list of the other items."""

    def __init__(self) -> None:
        self._kept = 0  # the number of items before those of `_tail`
        self._lines = 0  # the number of lines in these items
        self._tail = Transcript()
        self._items: list[Item] = []
        self._ends: list[int] = []  # the end offsets of the items, as far as they were needed

    @property
    def items(self) -> list[Item]:
        """All items. Do not change the list; it is valid until the next change."""
        return self._items

    @property
    def length(self) -> int:
        """The number of characters of the whole text."""
        return self.offset(len(self._items))

    def text(self, first: int = 0) -> str:
        """The text from this item on."""
        return "".join(item.text for item in self._items[first:])

    def append(self, text: str) -> int:
        """Add text. Returns the index of the first item that may have changed."""
        found = self._tail.append(text)
        first = self._kept + found
        fresh = self._tail.items[found:]
        if self._lines:
            fresh = [replace(item, line=item.line + self._lines) for item in fresh]
        self._items = [*self._items[:first], *fresh]
        del self._ends[first:]
        return first

    def cut(self, at: int) -> int:
        """Drop the text after character `at`. Returns the index of the first item that may have changed.

        Parsing starts again at the last complete header: a header begins a line, so the text from there on can be
        parsed by itself.
        """
        index = min(self.index_at(at), len(self._items) - 1)
        while index > 0 and not self._is_left(index, at):
            index -= 1
        if index < 0:
            return 0
        rest = self.text(index)[: max(0, at - self.offset(index))]
        self._lines = self._items[index].line - 1 if index else 0
        self._kept = index
        self._tail = Transcript()
        self._items = self._items[:index]
        del self._ends[index:]
        self.append(rest)
        return index

    def _is_left(self, index: int, at: int) -> bool:
        item = self._items[index]
        return isinstance(item, Turn) and self.offset(index) + len(item.head) <= at

    def branch(self, at: int) -> Growing:
        """A copy of the text up to character `at`."""
        other = Growing()
        other._items, other._ends = self._items, self._ends[:]
        other.cut(at)
        return other

    def offset(self, index: int) -> int:
        """The offset at which an item begins. For the index after the last one, the length."""
        known = len(self._ends)
        if index > known:
            lengths = (len(item.text) for item in self._items[known:])
            begin = self._ends[-1] if self._ends else 0
            self._ends += list(accumulate(lengths, initial=begin))[1:]
        return self._ends[index - 1] if index else 0

    def index_at(self, offset: int) -> int:
        """The item that contains this offset."""
        self.offset(len(self._items))
        return bisect_right(self._ends, offset)


def first_difference(one: list[Item], other: list[Item], begin: int = 0) -> int:
    """The first index at which two lists differ. They are known to be the same before `begin`."""
    shared = min(len(one), len(other))
    return next((i for i in range(begin, shared) if one[i] != other[i]), shared)
