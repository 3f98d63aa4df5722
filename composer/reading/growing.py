"""The items of a text that grows at its end and may be cut there: what stays is not read again."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from itertools import accumulate

from ssmprov.transcript import Item, Transcript, Turn


class Growing:
    """Items of a text. `append` and `cut` cost what they change, and a copy of the list of what stays."""

    def __init__(self) -> None:
        self._kept = 0  # items that stand before those of `_tail`, and the lines in them
        self._lines = 0
        self._tail = Transcript()
        self._items: list[Item] = []
        self._ends: list[int] = []  # where the items end, as far as that was asked for

    @property
    def items(self) -> list[Item]:
        """All of them; the list is not to be changed, and lasts until the next change."""
        return self._items

    @property
    def length(self) -> int:
        """Characters of the whole text."""
        return self.offset(len(self._items))

    def text(self, first: int = 0) -> str:
        """The text from an item on."""
        return "".join(item.text for item in self._items[first:])

    def append(self, text: str) -> int:
        """Take more text; the index of the first item that may have changed."""
        found = self._tail.append(text)
        first = self._kept + found
        fresh = self._tail.items[found:]
        if self._lines:
            fresh = [replace(item, line=item.line + self._lines) for item in fresh]
        self._items = [*self._items[:first], *fresh]
        del self._ends[first:]
        return first

    def cut(self, at: int) -> int:
        """Drop what stands after character `at`; the index of the first item that may have changed.

        It goes on from the last header that is left whole: a header stands at the beginning of a line, so what comes
        from there on can be read by itself.
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
        """Another one that begins with the same text, up to character `at`."""
        other = Growing()
        other._items, other._ends = self._items, self._ends[:]
        other.cut(at)
        return other

    def offset(self, index: int) -> int:
        """The character at which an item begins; of the index after the last one, the length."""
        known = len(self._ends)
        if index > known:
            lengths = (len(item.text) for item in self._items[known:])
            begin = self._ends[-1] if self._ends else 0
            self._ends += list(accumulate(lengths, initial=begin))[1:]
        return self._ends[index - 1] if index else 0

    def index_at(self, offset: int) -> int:
        """The item that holds a character."""
        self.offset(len(self._items))
        return bisect_right(self._ends, offset)


def first_difference(one: list[Item], other: list[Item], begin: int = 0) -> int:
    """The index from which two lists differ, where they are the same before `begin`."""
    shared = min(len(one), len(other))
    return next((i for i in range(begin, shared) if one[i] != other[i]), shared)
