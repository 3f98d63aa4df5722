"""The rendered view's interaction: mouse, context menu, links, search matches and the chosen turn."""

from __future__ import annotations

from PyQt6.QtCore import QEvent, QPoint, QRectF, Qt, QUrl, pyqtSignal
from PyQt6.QtGui import (
    QColor,
    QContextMenuEvent,
    QImage,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QResizeEvent,
    QTextCursor,
    QTextDocument,
    QWheelEvent,
)
from PyQt6.QtWidgets import QTextBrowser, QTextEdit, QWidget

from composer.reading.book import Book
from composer.reading.markup import is_link
from composer.reading.plain import displayable
from composer.reading.timers import Soon
from composer.reading.transcript_view import EARLIER, LATER, TranscriptView


class TranscriptBrowser(TranscriptView):
    """The rendered transcript with a chosen turn."""

    pressed_on = pyqtSignal(int)
    menu_wanted = pyqtSignal(int, QPoint)
    link_clicked = pyqtSignal(QUrl)
    zoom_wanted = pyqtSignal(int)

    def __init__(self, book: Book, parent: QWidget | None = None) -> None:
        super().__init__(book, parent)
        self._chosen = -1
        self._restyle_soon = Soon(self, 0, self.restyle)
        self.setAccessibleName("Transcript, rendered")
        self.setOpenLinks(False)
        self.setAcceptDrops(False)
        self.port.setAcceptDrops(False)
        self.setFrameShape(QTextBrowser.Shape.NoFrame)
        self.anchorClicked.connect(self._follow_link)
        self.drawn.connect(self.port.update)

    def mark(self, index: int) -> None:
        """Mark an item as chosen, -1 for none."""
        self._chosen = index
        self.port.update()

    def show_found(self, index: int, query: str, nth: int) -> bool:
        """Scroll to the nth match of `query` in an item. Returns whether the rendered text has any match."""
        self.following.set(False)
        self.show_item(index)
        found = self._places(index, displayable(query))
        current = min(nth, len(found) - 1)
        selections = []
        for at, cursor in enumerate(found):
            selection = QTextEdit.ExtraSelection()
            selection.cursor = cursor
            if at == current:
                selection.format.setBackground(self.palette().highlight())
                selection.format.setForeground(self.palette().highlightedText())
            else:
                selection.format.setBackground(QColor(self.renderer.theme.found))
            selections.append(selection)
        self.setExtraSelections(selections)
        if not found:
            return False
        begin = QTextCursor(self.text)
        begin.setPosition(found[current].selectionStart())
        rect = self.cursorRect(begin)
        if rect.top() < 0 or rect.bottom() > self.port.height():
            self.bar.setValue(self.bar.value() + rect.top() - self.port.height() // 3)
        return True

    def clear_found(self) -> None:
        self.setExtraSelections([])

    def _places(self, index: int, query: str) -> list[QTextCursor]:
        begin, end = self.span(index)
        found: list[QTextCursor] = []
        cursor = self.text.find(query, begin)
        while not cursor.isNull() and cursor.selectionEnd() <= end:
            found.append(cursor)
            cursor = self.text.find(query, cursor)
        return found

    # -- Qt event handlers

    def loadResource(self, kind: int, name: QUrl) -> object:
        """Load the images of formulas and nothing else."""
        if kind == QTextDocument.ResourceType.ImageResource.value:
            return self.renderer.image(name.toString()) or QImage()
        return b""

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() in (QEvent.Type.PaletteChange, QEvent.Type.FontChange):
            self._restyle_soon.ask()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        held = None if self.following.on else self.cursorForPosition(QPoint(self.renderer.em, 2))
        super().resizeEvent(event)
        if held is not None:  # keep the line at the upper edge
            with self.following.held():
                self.bar.setValue(self.bar.value() + self.cursorRect(held).top())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        if self._chosen in self.loaded:
            top, bottom = self.extent(self._chosen)
            theme, em = self.renderer.theme, self.renderer.em
            rect = QRectF(0, top - self.bar.value(), self.port.width(), bottom - top)
            painter = QPainter(self.port)
            painter.fillRect(rect, QColor(theme.chosen))
            painter.fillRect(QRectF(0, rect.top(), max(3.0, em / 5), rect.height()), QColor(theme.frame))
            painter.end()
        super().paintEvent(event)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        super().mouseReleaseEvent(event)
        if event is None or event.button() != Qt.MouseButton.LeftButton or self.textCursor().hasSelection():
            return
        point = event.position().toPoint()
        if not self.anchorAt(point):
            self.pressed_on.emit(self.index_at(point))

    def contextMenuEvent(self, event: QContextMenuEvent | None) -> None:
        if event is None:
            return
        index, place = self.index_at(event.pos()), event.globalPos()
        if event.reason() == QContextMenuEvent.Reason.Keyboard:
            index = self._chosen if self._chosen in self.loaded else self.top
            if index >= 0:
                self.show_item(index)
                y = max(0, round(self.extent(index)[0]) - self.bar.value()) + self.renderer.em
                place = self.port.mapToGlobal(QPoint(2 * self.renderer.em, y))
        self.menu_wanted.emit(index, place)
        event.accept()

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is not None and event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self.zoom_wanted.emit(1 if event.angleDelta().y() > 0 else -1)
            event.accept()
        else:
            super().wheelEvent(event)

    def _follow_link(self, url: QUrl) -> None:
        address = url.toString()
        if address == EARLIER:
            self.load_earlier()
        elif address == LATER:
            self.load_later()
        elif is_link(address):
            self.link_clicked.emit(url)
