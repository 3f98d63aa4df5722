"""The prompt: it grows with its text, sends with a key, and has a history of sent texts."""

from __future__ import annotations

from pathlib import Path

from PyQt6.QtCore import QEvent, QMimeData, QSize, Qt, pyqtSignal
from PyQt6.QtGui import (
    QDragEnterEvent,
    QDragMoveEvent,
    QDropEvent,
    QFontMetricsF,
    QKeyEvent,
    QResizeEvent,
    QTextCursor,
)
from PyQt6.QtWidgets import QPlainTextEdit, QSizePolicy, QWidget

SEND_KEYS = {
    "shift+enter": (Qt.KeyboardModifier.ShiftModifier, "Shift+Enter"),
    "enter": (Qt.KeyboardModifier.NoModifier, "Enter"),
    "ctrl+enter": (Qt.KeyboardModifier.ControlModifier, "Ctrl+Enter"),
}
LEAST_LINES, MOST_LINES = 3, 10
SHARE_OF_WINDOW = 0.4
HISTORY = 200


def local_files(data: QMimeData | None) -> list[Path]:
    """The local files that are dragged. Empty if anything else is dragged too."""
    if data is None or not data.hasUrls():
        return []
    urls = data.urls()
    paths = [Path(url.toLocalFile()) for url in urls if url.isLocalFile()]
    return paths if len(paths) == len(urls) else []


class PromptEdit(QPlainTextEdit):
    """A plain text editor. Enter with the modifier of `send_key` sends; any other Enter starts a new line."""

    send_wanted = pyqtSignal()
    files_dropped = pyqtSignal(list)  # list[Path]

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._send_key = "shift+enter"
        self._history: list[str] = []
        self._at: int | None = None  # the position in the history; None for the text being written
        self._unsent = ""
        self.setTabChangesFocus(True)
        self.setAcceptDrops(True)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        if (document := self.document()) is not None:
            document.setDocumentMargin(self.fontMetrics().height() / 3)
        if document is not None and (layout := document.documentLayout()) is not None:
            layout.documentSizeChanged.connect(lambda _: self._fit())
        self.send_key = self._send_key
        self._fit()

    @property
    def send_key(self) -> str:
        return self._send_key

    @send_key.setter
    def send_key(self, key: str) -> None:
        if key in SEND_KEYS:
            self._send_key = key
        shown = SEND_KEYS[self._send_key][1]
        self.setPlaceholderText(f"Write here. Press {shown} to send.")
        self.setToolTip("Ctrl+Up and Ctrl+Down show earlier texts. A text that begins with / is a command.")
        self.setAccessibleName("Text of the turn")
        self.setAccessibleDescription(f"Press {shown} to send.")

    @property
    def text(self) -> str:
        """The exact text: toPlainText would turn no-break spaces into spaces."""
        document = self.document()
        assert document is not None
        raw: str = document.toRawText()
        return raw.replace("\u2029", "\n")

    def set_text(self, text: str) -> None:
        """Replace the text. The user can undo it."""
        cursor = self.textCursor()
        cursor.select(QTextCursor.SelectionType.Document)
        cursor.insertText(text)
        cursor.movePosition(QTextCursor.MoveOperation.End)
        self.setTextCursor(cursor)

    # -- the history of sent texts

    def remember(self, text: str) -> None:
        self._at = None
        if text and self._history[-1:] != [text]:
            self._history = [*self._history, text][-HISTORY:]

    def walk(self, by: int) -> None:
        """Show the previous (-1) or next (1) sent text. After the last one comes the unsent text."""
        at = len(self._history) if self._at is None else self._at
        if self._at is not None and self.text != self._history[at]:
            at, self._at = len(self._history), None  # it was edited, so it is a new text now
        to = max(0, min(len(self._history), at + by))
        if to == at:
            return
        if self._at is None:
            self._unsent = self.text
        self._at = to if to < len(self._history) else None
        self.set_text(self._history[to] if self._at is not None else self._unsent)

    # -- events

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is None:
            return
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            if held == SEND_KEYS[self._send_key][0]:
                self.send_wanted.emit()
            else:  # Qt would put U+2028 for Shift+Enter
                self.textCursor().insertBlock()
                self.ensureCursorVisible()
        elif held == Qt.KeyboardModifier.ControlModifier and event.key() in (Qt.Key.Key_Up, Qt.Key.Key_Down):
            self.walk(-1 if event.key() == Qt.Key.Key_Up else 1)
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and local_files(event.mimeData()):
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    def dragMoveEvent(self, event: QDragMoveEvent | None) -> None:
        if event is not None and local_files(event.mimeData()):
            event.acceptProposedAction()
        else:
            super().dragMoveEvent(event)

    def dropEvent(self, event: QDropEvent | None) -> None:
        if event is not None and (paths := local_files(event.mimeData())):
            event.acceptProposedAction()
            self.files_dropped.emit(paths)
        else:
            super().dropEvent(event)

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.FontChange:
            self._fit()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._fit()

    def sizeHint(self) -> QSize:
        return QSize(super().sizeHint().width(), self.minimumHeight())

    def _fit(self) -> None:
        """Fit the height to the text, within bounds."""
        document, window = self.document(), self.window()
        if document is None or window is None:
            return
        line = QFontMetricsF(self.font()).lineSpacing()
        around = 2 * (document.documentMargin() + self.frameWidth()) + 1
        shown = max(LEAST_LINES, min(MOST_LINES, round(document.size().height())))  # in lines, for plain text
        if window is not self and window.isVisible():
            shown = max(LEAST_LINES, min(shown, int((window.height() * SHARE_OF_WINDOW - around) // line)))
        height = round(shown * line + around)
        if height != self.minimumHeight():
            self.setMinimumHeight(height)
            self.updateGeometry()
