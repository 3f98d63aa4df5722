"""The transcript pane: the rendered and the raw view, the chosen turn, and the search."""

from __future__ import annotations

from pathlib import Path

from PyQt6.QtCore import QEvent, QPoint, QUrl, pyqtSignal
from PyQt6.QtGui import QDragEnterEvent, QDropEvent, QResizeEvent
from PyQt6.QtWidgets import QPushButton, QTabWidget, QVBoxLayout, QWidget

from composer.reading.book import Book
from composer.reading.raw_view import RawView
from composer.reading.search_bar import SearchBar, place_after, places
from composer.reading.transcript_browser import TranscriptBrowser
from ssmprov.transcript import Turn

TABS = ("rendered", "raw")
ZOOM = 1.1
MOST_ZOOM = 20


class TranscriptPane(QWidget):
    """Shows a book in two tabs that share the chosen turn, the search and the text size."""

    turn_chosen = pyqtSignal(int)
    menu_wanted = pyqtSignal(int, QPoint)
    link_clicked = pyqtSignal(QUrl)
    files_dropped = pyqtSignal(list)

    def __init__(self, book: Book, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.book = book
        self.rendered = TranscriptBrowser(book)
        self.raw = RawView(book)
        self.search_bar = SearchBar()
        self._tabs = QTabWidget()
        self._tabs.setDocumentMode(True)
        self._tabs.setAccessibleName("Transcript")
        self._tabs.addTab(self.rendered, "Rendered")
        self._tabs.addTab(self.raw, "Raw")
        self._to_end = QPushButton("\u2193 Jump to the end", self)
        self._to_end.setAccessibleName("Jump to the end of the transcript")
        self._to_end.setToolTip("Show the end and follow new text")
        self._to_end.hide()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._tabs, 1)
        layout.addWidget(self.search_bar)
        self.search_bar.hide()
        self.setAcceptDrops(True)
        self._chosen = -1
        self._zoom = 0
        self._found: list[int] | None = None  # None: search again
        self._current = 0
        self._connect()

    def _connect(self) -> None:
        for view in (self.rendered, self.raw):
            view.pressed_on.connect(self._press)
            view.menu_wanted.connect(self._want_menu)
            view.link_clicked.connect(self.link_clicked)
            view.zoom_wanted.connect(self.zoom)
            view.following.changed.connect(self._place_button)
        self._to_end.clicked.connect(self.jump_to_end)
        self._tabs.currentChanged.connect(self._turn_tab)
        bar = self.search_bar
        bar.query_changed.connect(self._search)
        bar.next_wanted.connect(self.find_next)
        bar.previous_wanted.connect(self.find_previous)
        bar.closed.connect(self._end_search)
        self.book.changed.connect(self._book_changed)
        self.book.reset.connect(self._book_changed)

    @property
    def _view(self) -> TranscriptBrowser | RawView:
        return self.rendered if self._tabs.currentIndex() == 0 else self.raw

    # -- the chosen turn

    @property
    def chosen(self) -> int:
        """The index of the chosen item, -1 for none."""
        return self._chosen

    def choose(self, index: int) -> None:
        """Mark an item and scroll to it; -1 for none."""
        if not 0 <= index < len(self.book.items):
            index = -1
        if index >= 0:
            self._view.following.set(False)
            self._view.show_item(index)
        self._mark(index)

    def choose_step(self, by: int) -> None:
        """Choose the previous or next turn. If none is chosen: the last one, or the one at the upper edge."""
        items = self.book.items
        turns = [index for index, item in enumerate(items) if isinstance(item, Turn)]
        if not turns:
            return
        if self._chosen < 0:
            self.choose(turns[-1] if self.following else max(self._view.top, 0))
            return
        ahead = [index for index in turns if (index - self._chosen) * by > 0]
        if ahead:
            self.choose(ahead[0] if by > 0 else ahead[-1])

    def _press(self, index: int) -> None:
        self._mark(-1 if index == self._chosen else index)

    def _mark(self, index: int) -> None:
        for view in (self.rendered, self.raw):
            view.mark(index)
        if index != self._chosen:
            self._chosen = index
            self.turn_chosen.emit(index)

    def _want_menu(self, index: int, place: QPoint) -> None:
        if index >= 0:
            self._mark(index)
        self.menu_wanted.emit(index, place)

    # -- scrolling

    @property
    def following(self) -> bool:
        """Whether the view follows new text at the end."""
        return self._view.following.on

    def jump_to_end(self) -> None:
        self._view.jump_to_end()
        self._view.setFocus()

    def load_earlier(self) -> None:
        """Load 200 more turns. The raw view always shows all of them."""
        self.rendered.load_earlier()

    @property
    def top(self) -> int:
        """The item at the upper edge, -1 if the view follows the end."""
        return -1 if self.following else self._view.top

    @top.setter
    def top(self, index: int) -> None:
        if 0 <= index < len(self.book.items):
            self._view.following.set(False)
            self._view.show_at_top(index)
        else:
            self.jump_to_end()

    @property
    def tab(self) -> str:
        """`rendered` or `raw`."""
        return TABS[self._tabs.currentIndex()]

    @tab.setter
    def tab(self, name: str) -> None:
        self._tabs.setCurrentIndex(TABS.index(name) if name in TABS else 0)

    @property
    def zoomed(self) -> int:
        """The steps by which the text is larger (or smaller) than usual."""
        return self._zoom

    def zoom(self, steps: int) -> None:
        """Make the text larger or smaller by steps; 0: as large as usual."""
        self._zoom = max(-MOST_ZOOM // 2, min(MOST_ZOOM, self._zoom + steps)) if steps else 0
        self._set_fonts()

    def _set_fonts(self) -> None:
        points = self.font().pointSizeF() * ZOOM**self._zoom
        font = self.font()
        font.setPointSizeF(points)
        self.rendered.setFont(font)
        self.raw.set_size(points)

    # -- the search

    def show_search(self) -> None:
        self.search_bar.open_bar()

    def find_next(self) -> None:
        self._step_found(1)

    def find_previous(self) -> None:
        self._step_found(-1)

    def _search(self, _query: str) -> None:
        self._found = None
        self._look()
        top = max(self._view.top, 0)
        if self._found:
            self._current = place_after(self._found, self.book.offset_of(min(top, len(self.book.items))))
        self._show_found()

    def _look(self) -> list[int]:
        if self._found is None:
            self._found = places(self.book.shown, self.search_bar.query)
            self._current = min(self._current, max(0, len(self._found) - 1))
        return self._found

    def _step_found(self, by: int) -> None:
        if self.search_bar.isHidden():
            self.show_search()
        if found := self._look():
            self._current = (self._current + by) % len(found)
        self._show_found()

    def _show_found(self) -> None:
        found = self._look()
        hidden = False
        if found:
            offset, query = found[self._current], self.search_bar.query
            index = self.book.index_at(offset)
            begin = self.book.offset_of(index)
            if self.tab == "raw":
                self.raw.show_found(index, query, offset - begin)
            else:
                nth = len(places(self.book.items[index].text[: offset - begin], query))
                hidden = not self.rendered.show_found(index, query, nth)
        else:
            self._view.clear_found()
        self.search_bar.say(self._current, len(found), hidden)

    def _end_search(self) -> None:
        for view in (self.rendered, self.raw):
            view.clear_found()
        self._view.setFocus()

    # -- events

    def _book_changed(self, _first: int = 0) -> None:
        self._found = None
        if self._chosen >= len(self.book.items):
            self._mark(-1)

    def _turn_tab(self, _index: int) -> None:
        self._view.setFocus()
        if self._chosen >= 0:
            self._view.show_item(self._chosen)
        self._place_button()

    def _place_button(self, _on: bool = True) -> None:
        """Place the button in the lower right corner of the view."""
        button, view = self._to_end, self._view
        button.setVisible(not view.following.on and bool(self.book.items))
        button.adjustSize()
        gap = self.fontMetrics().height()
        corner = view.port.mapTo(self, QPoint(view.port.width(), view.port.height()))
        button.move(corner.x() - button.width() - gap, corner.y() - button.height() - gap)
        button.raise_()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._place_button()

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.FontChange:
            self._set_fonts()

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and _files(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        if event is not None and (files := _files(event)):
            event.acceptProposedAction()
            self.files_dropped.emit(files)


def _files(event: QDropEvent) -> list[Path]:
    """The dragged files, without directories."""
    data = event.mimeData()
    paths = [Path(url.toLocalFile()) for url in data.urls() if url.isLocalFile()] if data is not None else []
    return [path for path in paths if path.is_file()]
