"""The raw view: the whole transcript as it is in the file, updated in place."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from PyQt6.QtCore import QEvent, QPoint, QRectF, Qt, QUrl, pyqtSignal
from PyQt6.QtGui import (
    QColor,
    QContextMenuEvent,
    QFontDatabase,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QShowEvent,
    QTextCursor,
    QWheelEvent,
)
from PyQt6.QtWidgets import QPlainTextEdit, QScrollBar, QWidget

from composer.reading.book import Book
from composer.reading.follow import shared_prefix
from composer.reading.following import Following
from composer.reading.plain import displayable, units
from composer.reading.theme import theme_of
from composer.reading.timers import Soon

UPDATE_MS = 30


class RawView(QPlainTextEdit):
    """Shows all text of a book. It is filled only when it is shown."""

    pressed_on = pyqtSignal(int)
    menu_wanted = pyqtSignal(int, QPoint)
    zoom_wanted = pyqtSignal(int)
    link_clicked = pyqtSignal(QUrl)

    def __init__(self, book: Book, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        viewport, bar = self.viewport(), self.verticalScrollBar()
        if viewport is None or bar is None:
            raise RuntimeError("a text edit without its parts")
        self.book = book
        self.port: QWidget = viewport
        self.bar: QScrollBar = bar
        self._dirty: int | None = 0
        self._ends: list[int] = []  # the end of each item, in Qt positions
        self._chosen = -1
        self.setReadOnly(True)
        self.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.setUndoRedoEnabled(False)
        self.setAcceptDrops(False)
        self.port.setAcceptDrops(False)
        self.setFrameShape(QPlainTextEdit.Shape.NoFrame)
        self.setAccessibleName("Transcript, raw text")
        self.setPlaceholderText("There are no turns yet. Write on the left and press Shift+Enter to send.")
        self.set_size(self.font().pointSizeF())
        self.following = Following(self)
        self._soon = Soon(self, UPDATE_MS, self.update_now)
        book.changed.connect(self._changed)
        book.reset.connect(self._reset)

    def set_size(self, points: float) -> None:
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        font.setPointSizeF(points)
        self.setFont(font)
        margin = round(self.fontMetrics().height() / 2)
        document = self.document()
        if document is not None:
            document.setDocumentMargin(margin)

    def update_now(self) -> None:
        """Update the text that has changed."""
        self._soon.stop()
        dirty, self._dirty = self._dirty, None
        if dirty is None:
            return
        items = self.book.items
        dirty = min(dirty, len(self._ends), len(items))
        begin = self._ends[dirty - 1] if dirty else 0
        texts = [displayable(item.text) for item in items[dirty:]]
        new = "".join(texts)
        with self.following.held():
            if not self._ends:
                self.setPlainText(new)
            else:
                cursor = QTextCursor(self.document())
                cursor.setPosition(begin)
                cursor.movePosition(QTextCursor.MoveOperation.End, QTextCursor.MoveMode.KeepAnchor)
                old = cursor.selectedText().replace("\u2029", "\n")
                same = shared_prefix(old, new)
                cursor.setPosition(begin + units(new[:same]))
                cursor.movePosition(QTextCursor.MoveOperation.End, QTextCursor.MoveMode.KeepAnchor)
                if same < len(old) or same < len(new):
                    cursor.insertText(new[same:])
        self._ends[dirty:] = list(accumulate((units(text) for text in texts), initial=begin))[1:]
        self.port.update()

    def jump_to_end(self) -> None:
        self.update_now()
        self.following.to_end()

    def span(self, index: int) -> tuple[int, int]:
        return (self._ends[index - 1] if index else 0), self._ends[index]

    @property
    def top(self) -> int:
        """The item at the upper edge, -1 for none."""
        return self.index_at(QPoint(2, 2))

    def index_at(self, point: QPoint) -> int:
        """The item at a point of the viewport, -1 for none."""
        found = bisect_right(self._ends, self.cursorForPosition(point).position())
        return min(found, len(self._ends) - 1)

    def show_item(self, index: int) -> None:
        """Bring an item's first line into view."""
        self.update_now()
        rect = self._rect(index)
        if rect.top() < 0 or rect.top() > self.port.height() - self.fontMetrics().height():
            self.show_at_top(index)

    def show_at_top(self, index: int) -> None:
        """Scroll an item to the upper edge. The scroll bar counts wrapped lines."""
        self.update_now()
        document = self.document()
        if document is not None and index < len(self._ends):
            self.bar.setValue(document.findBlock(self.span(index)[0]).firstLineNumber())

    def mark(self, index: int) -> None:
        """Mark an item as chosen, -1 for none."""
        self._chosen = index
        self.port.update()

    def show_found(self, index: int, query: str, offset: int) -> bool:
        """Select a match at `offset` characters after the beginning of an item."""
        self.update_now()
        self.following.set(False)
        text = self.book.items[index].text
        begin = self.span(index)[0] + units(displayable(text[:offset]))
        cursor = self.textCursor()
        cursor.setPosition(begin)
        cursor.setPosition(
            begin + units(displayable(text[offset : offset + len(query)])), QTextCursor.MoveMode.KeepAnchor
        )
        self.setTextCursor(cursor)
        self.centerCursor()
        return True

    def clear_found(self) -> None:
        cursor = self.textCursor()
        cursor.clearSelection()
        self.setTextCursor(cursor)

    def _changed(self, first: int) -> None:
        self._dirty = first if self._dirty is None else min(self._dirty, first)
        if self.isVisible():
            self._soon.ask()

    def _reset(self) -> None:
        self._changed(0)

    def _rect(self, index: int) -> QRectF:
        """The rectangle of an item in the viewport."""
        document = self.document()
        if document is None or not 0 <= index < len(self._ends):
            return QRectF()
        begin, end = self.span(index)
        first, last = document.findBlock(begin), document.findBlock(max(begin, end - 1))
        top = self.blockBoundingGeometry(first).translated(self.contentOffset()).top()
        bottom = self.blockBoundingGeometry(last).translated(self.contentOffset()).bottom()
        return QRectF(0, top, self.port.width(), bottom - top)

    # -- Qt event handlers

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self.update_now()

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.PaletteChange:
            self.port.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        rect = self._rect(self._chosen)
        if rect.isValid() and rect.bottom() > 0 and rect.top() < self.port.height():
            theme = theme_of(self.palette())
            painter = QPainter(self.port)
            painter.fillRect(rect, QColor(theme.chosen))
            painter.fillRect(QRectF(0, rect.top(), 3, rect.height()), QColor(theme.frame))
            painter.end()
        super().paintEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        super().mouseReleaseEvent(event)
        if event is not None and event.button() == Qt.MouseButton.LeftButton and not self.textCursor().hasSelection():
            self.pressed_on.emit(self.index_at(event.position().toPoint()))

    def contextMenuEvent(self, event: QContextMenuEvent | None) -> None:
        if event is None:
            return
        index, place = self.index_at(event.pos()), event.globalPos()
        if event.reason() == QContextMenuEvent.Reason.Keyboard and self._ends:
            index = self._chosen if 0 <= self._chosen < len(self._ends) else self.top
            self.show_item(index)
            line = self.fontMetrics().height()
            place = self.port.mapToGlobal(QPoint(2 * line, max(0, round(self._rect(index).top())) + line))
        self.menu_wanted.emit(index, place)
        event.accept()

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is not None and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_wanted.emit(1 if event.angleDelta().y() > 0 else -1)
            event.accept()
        else:
            super().wheelEvent(event)
