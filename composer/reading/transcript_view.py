"""The rendered view: shows some of the turns in a text browser and redraws only what changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from PyQt6.QtCore import QPoint, pyqtSignal
from PyQt6.QtGui import QShowEvent, QTextDocument
from PyQt6.QtWidgets import QScrollBar, QTextBrowser, QWidget

from composer.reading.book import Book
from composer.reading.following import Following
from composer.reading.leaves import Leaves
from composer.reading.render import Renderer
from composer.reading.theme import theme_of
from composer.reading.timers import Soon
from ssmprov.transcript import Turn

LOADED = 200
"""Turns shown at first, and loaded at a time."""

AT_ONCE = 30
"""Items drawn before the first paint. The others follow while the window is idle."""

STEP_S = 0.03
"""How long this later drawing may take at a time."""

UPDATE_MS = 35
"""How long pieces of a stream are collected before drawing. Longer if drawing is slow."""

EARLIER, LATER = "composer:earlier", "composer:later"

EMPTY = """<h3>There are no turns yet</h3>
<p>Each turn that you or the model writes appears here, with Markdown, formulas and code rendered. The <b>Raw</b> tab
shows the text as it is in the file.</p>
<p>Write on the left and press Shift+Enter to send.</p>"""


class TranscriptView(QTextBrowser):
    """Shows the items `loaded` of a book. `TranscriptBrowser` handles mouse and keys."""

    drawn = pyqtSignal()
    """Emitted after something was redrawn."""

    def __init__(self, book: Book, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.book = book
        document, viewport, bar = self.document(), self.viewport(), self.verticalScrollBar()
        if document is None or viewport is None or bar is None:
            raise RuntimeError("a text browser without its parts")
        self.text: QTextDocument = document
        self.port: QWidget = viewport
        self.bar: QScrollBar = bar
        self._dirty: int | None = 0
        self._want_first = self._want_last = 0
        self._tied = True  # the loaded items include the end of the transcript, even when it grows
        self.setUndoRedoEnabled(False)
        self.following = Following(self)
        self._soon = Soon(self, UPDATE_MS, self.update_now)
        self._fill_soon = Soon(self, 0, self._fill)
        self.renderer = self._new_renderer()
        self._leaves = Leaves(self.text, self.renderer)
        book.changed.connect(self._changed)
        book.reset.connect(self._reset)

    @property
    def loaded(self) -> range:
        """The drawn items."""
        return range(self._leaves.first, self._leaves.last)

    @property
    def top(self) -> int:
        """The item at the upper edge, -1 for none."""
        return self.index_at(QPoint(self.renderer.em, 2))

    def update_now(self) -> None:
        """Draw what has changed."""
        self._soon.stop()
        dirty, self._dirty = self._dirty, None
        if dirty is None:
            return
        began = time.perf_counter()
        items, first, last = self.book.items, self._leaves.first, self._leaves.last
        if not items or dirty < first or first == last or (self._tied and len(items) - dirty > LOADED):
            if self.following.on or self._tied or not items:
                self._show_end()
            else:
                self._show_around(max(0, self.top))
        else:
            self._draw_from(dirty)
        self.drawn.emit()
        cost_ms = 1000 * (time.perf_counter() - began)
        self._soon.setInterval(round(min(1000, max(UPDATE_MS, 4 * cost_ms))))

    def load_earlier(self) -> None:
        """Draw 200 more turns before the first one, step by step."""
        self._want_first = self._turns_back(self._want_first, LOADED)
        self._fill_soon.ask()

    def load_later(self) -> None:
        """Draw more items after the last loaded one."""
        count = len(self.book.items)
        self._want_last = min(count, self._want_last + LOADED)
        self._tied = self._want_last == count
        self._fill_soon.ask()

    def jump_to_end(self) -> None:
        """Show the end and follow it."""
        self.update_now()
        self.following.set(True)
        if self._leaves.last < len(self.book.items):
            self._show_end()
        self.following.to_end()

    def show_item(self, index: int) -> None:
        """Scroll to an item. If it is not loaded, draw it and the items around it."""
        self.update_now()
        if index not in self.loaded:
            self._show_around(index)
        top, bottom = self.extent(index)
        begin, height = self.bar.value(), self.port.height()
        if top < begin or bottom > begin + height:
            self.bar.setValue(round(top if top < begin or bottom - top > height else bottom - height))

    def show_at_top(self, index: int) -> None:
        """Scroll an item to the upper edge."""
        self.update_now()
        if index not in self.loaded:
            self._show_around(index)
        self.bar.setValue(round(self.extent(index)[0]))

    def restyle(self) -> None:
        """Redraw everything with the current colours and font."""
        top = self.top
        self.renderer = self._new_renderer()
        self._leaves = Leaves(self.text, self.renderer)
        self._dirty = None
        if self.following.on or top < 0:
            self._show_end()
        else:
            self._show_around(top)
        self.drawn.emit()

    # -- positions

    def span(self, index: int) -> tuple[int, int]:
        """The begin and end of a loaded item in the document."""
        return self._leaves.span(index)

    def extent(self, index: int) -> tuple[float, float]:
        """The top and bottom of a loaded item, in pixels from the document's top."""
        begin, end = self._leaves.span(index)
        layout = self.text.documentLayout()
        if layout is None:
            return 0.0, 0.0
        after = self.text.findBlock(end).next()
        last = layout.blockBoundingRect(after).top() if after.isValid() else self.height_of_all()
        return layout.blockBoundingRect(self.text.findBlock(begin)).top(), last

    def index_at(self, point: QPoint) -> int:
        """The item at a point of the viewport, -1 for none."""
        return self._leaves.index_at(self.cursorForPosition(point).position())

    def height_of_all(self) -> float:
        """The height of the document. This forces a full layout."""
        layout = self.text.documentLayout()
        return layout.documentSize().height() if layout is not None else 0.0

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.update_now()

    # -- drawing

    def _changed(self, first: int) -> None:
        self._dirty = first if self._dirty is None else min(self._dirty, first)
        if self.isVisible():
            self._soon.ask()

    def _reset(self) -> None:
        self._changed(0)

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Wrap changes of the document. Afterwards it is laid out, and a following view is at its end."""
        with self.following.held():
            yield
            self.height_of_all()

    def _draw_from(self, dirty: int) -> None:
        items, leaves, streaming = self.book.items, self._leaves, self.book.streaming
        with self._drawing():
            if dirty <= leaves.last:
                stop = len(items) if self._tied else min(leaves.last, len(items))
                leaves.replace(dirty, items[dirty:stop], streaming and stop == len(items))
            self._want_last = len(items) if self._tied else min(self._want_last, len(items))
            self._set_links()

    def _show_end(self) -> None:
        """Draw the last items. The others, up to 200 turns, follow later."""
        count = len(self.book.items)
        self._want_first = self._turns_back(count, LOADED)
        self._want_last, self._tied = count, True
        self._show(max(self._want_first, count - AT_ONCE), count)

    def _show_around(self, index: int) -> None:
        count = len(self.book.items)
        index = max(0, min(index, count - 1))
        first = max(0, index - AT_ONCE // 4)
        self._want_first = self._turns_back(index, LOADED // 2)
        self._want_first = min(self._want_first, first)
        self._want_last = min(count, index + LOADED // 2)
        self._tied = self._want_last == count
        self.following.set(False)
        self._show(first, min(count, first + AT_ONCE))
        if count:
            self.bar.setValue(round(self.extent(index)[0]))

    def _show(self, first: int, last: int) -> None:
        items = self.book.items
        with self._drawing():
            self._leaves.clear(first)
            if items:
                self._leaves.append(items[first:last], self.book.streaming and last == len(items))
                self._set_links()
                self._fill_soon.ask()
            else:
                self.text.setHtml(EMPTY)

    def _fill(self) -> None:
        """Draw some of the remaining items without moving what the reader sees."""
        self.update_now()
        deadline = time.perf_counter() + STEP_S
        items, leaves = self.book.items, self._leaves
        wanted = min(self._want_last, len(items))
        with self._drawing():
            while leaves.last < wanted and time.perf_counter() < deadline:
                last = min(leaves.last + 5, wanted)
                leaves.append(items[leaves.last : last], self.book.streaming and last == len(items))
            before, value = self.height_of_all(), self.bar.value()
            while leaves.first > self._want_first and time.perf_counter() < deadline:
                leaves.prepend(items[max(self._want_first, leaves.first - 5) : leaves.first])
            self._set_links()
            moved = self.height_of_all() - before
            if moved and not self.following.on:
                self.bar.setValue(round(value + moved))
        if leaves.first > self._want_first or leaves.last < wanted:
            self._fill_soon.ask()
        self.drawn.emit()

    def _set_links(self) -> None:
        items, first, last = self.book.items, self._leaves.first, self._leaves.last
        above = sum(isinstance(item, Turn) for item in items[:first])
        below = sum(isinstance(item, Turn) for item in items[last:])
        link = self.renderer.link
        self._leaves.set_links(
            link(EARLIER, f"Load {min(above, LOADED):,} earlier turns ({above:,} above)") if above else "",
            link(LATER, f"Load {min(below, LOADED):,} later turns ({below:,} below)") if below else "",
        )

    def _turns_back(self, index: int, turns: int) -> int:
        """The index that is this many turns before `index`."""
        items = self.book.items
        while index > 0 and turns > 0:
            index -= 1
            turns -= isinstance(items[index], Turn)
        return index

    def _new_renderer(self) -> Renderer:
        return Renderer(theme_of(self.palette()), self.font(), self.devicePixelRatioF())
