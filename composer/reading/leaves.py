"""Draws items into a text document, tracks the positions of each item, and replaces the items that change.

    block 0          the link to earlier turns, or nothing
    item `first`     a line without height, then the item's HTML
    ...
    after the last   the link to later turns, or nothing

A streaming turn is drawn in pieces: its stable part stays in the document, and only its end is replaced.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QTextBlockFormat, QTextCharFormat, QTextCursor, QTextDocument

from composer.reading.highlight import ROLES
from composer.reading.pieces import stable
from composer.reading.render import PLAIN, Renderer
from ssmprov.transcript import Item, Turn

MARK = "x"
"""A dummy first paragraph, because Qt merges the first paragraph of HTML with the block before it."""


@dataclass(slots=True)
class _Open:
    """The streaming turn: the stable part of its content, and the position in the document after that part."""

    head: str
    said: str
    end: int


class Leaves:
    """The items `first` to `last` of a list, drawn into a document."""

    def __init__(self, document: QTextDocument, renderer: Renderer) -> None:
        self._document = document
        self._renderer = renderer
        self.first = 0
        self._starts: list[int] = []
        self._end = 0
        self._open: _Open | None = None
        self._earlier = self._later = ""
        self._line = QTextBlockFormat()
        fixed = QTextBlockFormat.LineHeightTypes.FixedHeight.value
        self._line.setLineHeight(1, fixed)  # type: ignore[arg-type]  # Qt accepts an int
        document.setDefaultStyleSheet(renderer.stylesheet)
        document.setDocumentMargin(renderer.em)
        self.clear()

    @property
    def last(self) -> int:
        """The index after the last drawn item."""
        return self.first + len(self._starts)

    def clear(self, first: int = 0) -> None:
        """Remove everything. The next drawn item has this index."""
        self._document.clear()
        self.first, self._starts, self._open, self._earlier, self._later = first, [], None, "", ""
        QTextCursor(self._document).setBlockFormat(self._line)
        self._end = self._length

    def append(self, items: Sequence[Item], streaming: bool = False) -> None:
        """Draw more items at the end. If `streaming`, the last one is the streaming turn."""
        later, self._later = self._later, ""
        cursor = self._after(self._end)
        cursor.beginEditBlock()
        for at, item in enumerate(items):
            self._starts.append(self._length)
            is_open = streaming and at == len(items) - 1 and isinstance(item, Turn) and not item.closed
            if is_open and isinstance(item, Turn):
                self._begin_open(cursor, item)
            else:
                self._insert(cursor, self._renderer.html(item))
        self._end = self._length
        self._draw_later(cursor, later)
        cursor.endEditBlock()

    def prepend(self, items: Sequence[Item]) -> None:
        """Draw items before the first drawn one."""
        before = self._length
        cursor = QTextCursor(self._document)
        cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock)
        cursor.beginEditBlock()
        fresh = []
        for item in items:
            fresh.append(cursor.position())
            self._insert(cursor, self._renderer.html(item))
        cursor.endEditBlock()
        self.first -= len(fresh)
        self._shift(self._length - before)
        self._starts = [*fresh, *self._starts]

    def replace(self, index: int, items: Sequence[Item], streaming: bool = False) -> None:
        """Replace all items from `index` on with `items`."""
        if index == self.last - 1 and len(items) == 1 and streaming and self._continue_open(items[0]):
            return
        start = self._starts[index - self.first] if index < self.last else self._end
        del self._starts[index - self.first :]
        self._open = None
        cursor = self._after(start)
        cursor.beginEditBlock()
        self._end, self._later = start, ""
        self.append(items, streaming)
        cursor.endEditBlock()

    def set_links(self, earlier: str, later: str) -> None:
        """Set the HTML before the first and after the last item; '' for nothing."""
        if earlier != self._earlier:
            self._draw_earlier(earlier)
        if later != self._later:
            self._draw_later(self._after(self._end), later)

    def index_at(self, position: int) -> int:
        """The item at a position of the document, -1 for none."""
        found = bisect_right(self._starts, position - 1)
        return self.first + found - 1 if found and position <= self._end else -1

    def span(self, index: int) -> tuple[int, int]:
        """The begin and end of an item: positions in its first and in its last block."""
        at = index - self.first
        end = self._starts[at + 1] if at + 1 < len(self._starts) else self._end
        return min(self._starts[at] + 1, end), end

    @property
    def _length(self) -> int:
        return self._document.characterCount() - 1

    def _after(self, position: int) -> QTextCursor:
        """Delete everything after a position and return a cursor there."""
        cursor = QTextCursor(self._document)
        cursor.setPosition(position)
        if position < self._length:
            kept = cursor.blockFormat()
            cursor.movePosition(QTextCursor.MoveOperation.End, QTextCursor.MoveMode.KeepAnchor)
            cursor.removeSelectedText()
            cursor.setBlockFormat(kept)  # Qt gives an empty block, e.g. a rule, the format of the next block
        return cursor

    def _insert(self, cursor: QTextCursor, html: str) -> None:
        if not html:
            return
        cursor.insertBlock(self._line, QTextCharFormat())
        begin = cursor.position()
        cursor.insertHtml(f"<p>{MARK}</p>{html}")
        mark = QTextCursor(self._document)
        mark.setPosition(begin)
        mark.deleteChar()

    def _draw_earlier(self, html: str) -> None:
        self._earlier = html
        cursor = QTextCursor(self._document)
        cursor.movePosition(QTextCursor.MoveOperation.EndOfBlock, QTextCursor.MoveMode.KeepAnchor)
        before = self._length
        cursor.beginEditBlock()
        cursor.removeSelectedText()
        form = QTextBlockFormat() if html else self._line
        if html:
            cursor.insertHtml(html)
            form.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        cursor.setBlockFormat(form)
        cursor.endEditBlock()
        self._shift(self._length - before)

    def _shift(self, by: int) -> None:
        """Move all stored positions by this much."""
        self._starts = [start + by for start in self._starts]
        self._end += by
        if self._open is not None:
            self._open.end += by

    def _draw_later(self, cursor: QTextCursor, html: str) -> None:
        self._later = html
        self._insert(cursor, html)

    def _begin_open(self, cursor: QTextCursor, turn: Turn) -> None:
        self._insert(cursor, self._renderer.head(turn))
        self._open = _Open(turn.head, "", self._length)
        self._draw_end(cursor, turn)

    def _continue_open(self, item: Item) -> bool:
        """Draw the new text of the streaming turn, if it is still the same turn and open. Returns whether it is."""
        held = self._open
        if held is None or not isinstance(item, Turn) or item.closed or item.head != held.head:
            return False
        if not item.content.startswith(held.said):
            return False
        cursor = QTextCursor(self._document)
        cursor.beginEditBlock()
        self._draw_end(self._after(held.end), item)
        self._end, later = self._length, self._later
        cursor.endEditBlock()
        self._draw_later(self._after(self._end), later)
        return True

    def _draw_end(self, cursor: QTextCursor, turn: Turn) -> None:
        held = self._open
        assert held is not None
        content, role = turn.content, turn.role
        if role not in PLAIN and role not in ROLES and (place := stable(content, len(held.said))) > len(held.said):
            self._insert(cursor, self._renderer.body(content[len(held.said) : place], role))
            held.said, held.end = content[:place], self._length
        rest = self._renderer.body(content[len(held.said) :], role, quick=True)
        self._insert(cursor, rest + self._renderer.foot(turn, streaming=True))
        self._end = self._length
