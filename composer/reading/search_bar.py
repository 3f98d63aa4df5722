"""The search bar below the transcript: the query, the current match, and the buttons for other matches."""

from __future__ import annotations

import re
from bisect import bisect_left

from PyQt6.QtCore import QEvent, Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent
from PyQt6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QToolButton, QWidget

from composer.reading.timers import Soon

MOST = 100_000
"""Matches beyond this number are not counted."""

TYPING_MS = 120


class SearchBar(QWidget):
    """Emits signals for what the user wants; `say` shows the result."""

    query_changed = pyqtSignal(str)
    next_wanted = pyqtSignal()
    previous_wanted = pyqtSignal()
    closed = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.field = QLineEdit()
        self.field.setAccessibleName("Search the transcript")
        self.field.setPlaceholderText("Search the whole transcript")
        self.field.setClearButtonEnabled(True)
        self._label = QLabel()
        self._label.setAccessibleName("Matches")
        self._label.setMinimumWidth(self.fontMetrics().horizontalAdvance("12,345 of 12,345 "))
        previous, following = QPushButton("&Previous"), QPushButton("&Next")
        previous.setToolTip("Previous match (Shift+Enter)")
        following.setToolTip("Next match (Enter)")
        close = QToolButton()
        close.setText("\u00d7")
        close.setAutoRaise(True)
        close.setAccessibleName("Close the search")
        close.setToolTip("Close the search (Esc)")
        layout = QHBoxLayout(self)
        half = self.fontMetrics().height() // 2
        layout.setContentsMargins(half, half // 2, half, half // 2)
        layout.setSpacing(half)
        for widget in (self.field, self._label, previous, following, close):
            layout.addWidget(widget, 1 if widget is self.field else 0)
        for button in (previous, following):
            button.setAccessibleName(button.text().replace("&", "") + " match")
            button.setAutoDefault(False)
        self._typed = Soon(self, TYPING_MS, self._say_query)
        self.field.textChanged.connect(self._typed.ask)
        self.field.installEventFilter(self)
        previous.clicked.connect(self.previous_wanted)
        following.clicked.connect(self.next_wanted)
        close.clicked.connect(self.close_bar)

    @property
    def query(self) -> str:
        return self.field.text()

    def open_bar(self) -> None:
        self.show()
        self.field.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self.field.selectAll()
        if self.query:
            self._typed.ask()

    def close_bar(self) -> None:
        self.hide()
        self.closed.emit()

    def say(self, current: int, count: int, hidden: bool = False) -> None:
        """Show the number of the match, counted from 0. `hidden`: the rendered view does not show it."""
        if not self.query:
            text = ""
        elif not count:
            text = "Not found"
        else:
            text = f"{current + 1:,} of {count:,}{'+' if count >= MOST else ''}"
        self._label.setText(text + (", see Raw" if hidden else ""))
        self._label.setToolTip("Only the Raw tab shows this match." if hidden else "")

    @property
    def said(self) -> str:
        return self._label.text()

    def _say_query(self) -> None:
        self.query_changed.emit(self.query)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Escape:
            self.close_bar()
        else:
            super().keyPressEvent(event)

    def eventFilter(self, watched: object, event: QEvent | None) -> bool:
        """Handle Enter and Shift+Enter in the field."""
        if not isinstance(event, QKeyEvent) or event.type() != QEvent.Type.KeyPress or watched is not self.field:
            return False
        if event.key() not in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            return False
        if self._typed.isActive():
            self._typed.stop()
            self._say_query()
        elif event.modifiers() & Qt.KeyboardModifier.ShiftModifier:
            self.previous_wanted.emit()
        else:
            self.next_wanted.emit()
        return True


def places(text: str, query: str) -> list[int]:
    """The offsets of the query in a text, ignoring case; at most `MOST`."""
    if not query:
        return []
    found: list[int] = []
    for match in re.finditer(re.escape(query), text, re.IGNORECASE):
        found.append(match.start())
        if len(found) >= MOST:
            break
    return found


def place_after(found: list[int], offset: int) -> int:
    """The index of the first match at or after an offset; 0 if there is none."""
    at = bisect_left(found, offset)
    return at if at < len(found) else 0
