"""A dialog that shows several replies side by side while they are written, to pick one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PyQt6.QtCore import QEvent, Qt, pyqtSignal
from PyQt6.QtGui import QColor, QKeyEvent, QPalette, QTextCursor
from PyQt6.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from composer.reading.plain import displayable
from composer.reading.theme import theme_of
from composer.reading.timers import Soon
from ssmprov.transcript import FENCE

WAITING, READING, WRITING, DONE, FAILED = "waiting", "reading", "writing", "done", "failed"
COALESCE_MS = 40
_NARROWEST_EMS = 20
_KEYS = 9


class RerollPicker(QDialog):
    """Not modal. The keys 1 to 9 pick a finished reply. Closing it picks none."""

    picked = pyqtSignal(int)
    stop_wanted = pyqtSignal()
    more_wanted = pyqtSignal()
    closed = pyqtSignal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Other replies")
        self.setModal(False)
        self._cards: list[Card] = []
        self._flush = Soon(self, COALESCE_MS, self._write_out)
        self._build()

    # -- used by the window

    def begin(self, labels: Sequence[str]) -> None:
        """Show empty cards, one for each label (the name of the worker, or '')."""
        for card in self._cards:
            self._row.removeWidget(card)
            card.deleteLater()
        self._cards = []
        self.add(labels)

    def add(self, labels: Sequence[str]) -> None:
        """Add cards after `more_wanted`."""
        for label in labels:
            card = Card(len(self._cards), label)
            card.picked.connect(self.picked)
            self._cards.append(card)
            self._row.addWidget(card, 1)
        self._tell()
        if self._cards and not self._strip.hasFocus():
            self._strip.setFocus(Qt.FocusReason.OtherFocusReason)

    def queued(self, i: int, place: int) -> None:
        self._change(i, lambda card: card.tell(WAITING, f"{place} ahead of it" if place else ""))

    def progress(self, i: int, done: int, total: int) -> None:
        """The prefill has read `done` of `total` tokens."""
        self._change(i, lambda card: card.read(done, total))

    def write(self, i: int, piece: str) -> None:
        """More of the reply."""
        self._change(i, lambda card: card.take(piece))
        self._flush.ask()

    def finish(self, i: int, summary: str) -> None:
        """The reply is done and can be picked."""
        self._change(i, lambda card: card.end(DONE, summary))

    def fail(self, i: int, message: str) -> None:
        self._change(i, lambda card: card.end(FAILED, message))

    def text(self, i: int) -> str:
        """The text written so far."""
        return self._cards[i].said

    @property
    def running(self) -> int:
        return sum(card.state not in (DONE, FAILED) for card in self._cards)

    # -- internals

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.modifiers() in (
            Qt.KeyboardModifier.NoModifier,
            Qt.KeyboardModifier.KeypadModifier,
        ):
            number = event.key() - Qt.Key.Key_1
            if 0 <= number < min(_KEYS, len(self._cards)):
                self._cards[number].pick.click()
                return
        super().keyPressEvent(event)

    def reject(self) -> None:
        """Qt calls this for Esc and for the close button of the window."""
        super().reject()
        self.closed.emit()

    def _build(self) -> None:
        gap = self.fontMetrics().height() // 2
        self._strip = QScrollArea()
        self._strip.setWidgetResizable(True)
        self._strip.setFrameShape(QFrame.Shape.NoFrame)
        self._strip.setAccessibleName("Replies")
        self._strip.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        inner = QWidget()
        self._row = QHBoxLayout(inner)
        self._row.setContentsMargins(0, 0, 0, 0)
        self._row.setSpacing(gap)
        self._strip.setWidget(inner)
        self._hint = QLabel()
        self._stop = QPushButton("&Stop all")
        self._stop.setToolTip("Stop writing. You can still pick what is there.")
        self._more = QPushButton("&More")
        self._more.setToolTip("Write the same number of replies again")
        close = QPushButton("&Keep the old one")
        close.setToolTip("Close without picking one (Esc). All replies stay in the tree.")
        self._stop.clicked.connect(self.stop_wanted)
        self._more.clicked.connect(self.more_wanted)
        close.clicked.connect(self.close)
        foot = QHBoxLayout()
        foot.setSpacing(gap)
        foot.addWidget(self._hint, 1)
        for button in (self._stop, self._more, close):
            button.setAutoDefault(False)
            foot.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * gap, 2 * gap, 2 * gap, 2 * gap)
        layout.setSpacing(gap)
        layout.addWidget(self._strip, 1)
        layout.addLayout(foot)
        em = self.fontMetrics().horizontalAdvance("m")
        self.resize(90 * em, 42 * em)

    def _change(self, i: int, change: Callable[[Card], None]) -> None:
        """Change a card. Ignore signals for cards that are gone."""
        if 0 <= i < len(self._cards):
            change(self._cards[i])
            self._tell()

    def _write_out(self) -> None:
        for card in self._cards:
            card.write_out()

    def _tell(self) -> None:
        running, done = self.running, sum(card.state == DONE for card in self._cards)
        self._stop.setEnabled(running > 0)
        self._more.setEnabled(running == 0)
        keys = min(_KEYS, len(self._cards))
        if done:
            self._hint.setText(f"Press 1 to {keys} to pick one." if keys > 1 else "Press 1 to pick it.")
        else:
            self._hint.setText("You can pick a reply when it is done." if running else "")


class Card(QFrame):
    """One reply while it is written."""

    picked = pyqtSignal(int)

    def __init__(self, index: int, label: str) -> None:
        super().__init__()
        self.index, self.label = index, label
        self.state = WAITING
        self.said = ""
        self._pending: list[str] = []
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self._head, self._state = QLabel(f"<b>{index + 1}</b>"), QLabel()
        self._worker = QLabel(displayable(label))
        self._reading = QProgressBar()
        self.view = QPlainTextEdit()
        self.pick = QPushButton(f"Pick {index + 1}")
        self._build()
        self.tell(WAITING)

    def tell(self, state: str, more: str = "") -> None:
        self.state = state
        words = f"{state}: {more}" if more else state
        self._state.setText(displayable(words))
        self._reading.setVisible(state == READING)
        self.pick.setEnabled(state == DONE)
        self.setAccessibleName(f"Reply {self.index + 1}, {words}")
        self._colour()

    def read(self, done: int, total: int) -> None:
        if self.state not in (DONE, FAILED):
            self.tell(READING, f"{done:,} of {total:,} tokens")
            self._reading.setRange(0, max(1, total))
            self._reading.setValue(min(done, total))

    def take(self, piece: str) -> None:
        self.said += piece
        self._pending.append(piece)
        if self.state in (WAITING, READING):
            self.tell(WRITING)

    def end(self, state: str, words: str) -> None:
        self.write_out()
        if self.said.endswith(FENCE):  # a card does not show the fence
            cursor = QTextCursor(self.view.document())
            cursor.movePosition(QTextCursor.MoveOperation.End)
            cursor.movePosition(QTextCursor.MoveOperation.Left, QTextCursor.MoveMode.KeepAnchor, len(FENCE))
            cursor.removeSelectedText()
        self.tell(state, words)

    def write_out(self) -> None:
        """Show the new text. The view follows unless it was scrolled up."""
        if not self._pending:
            return
        piece = displayable("".join(self._pending))
        self._pending.clear()
        bar = self.view.verticalScrollBar()
        follow = bar is not None and bar.value() >= bar.maximum() - 1
        cursor = QTextCursor(self.view.document())
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(piece)
        if bar is not None and follow:
            bar.setValue(bar.maximum())

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.PaletteChange:
            self._colour()

    def _build(self) -> None:
        metrics = self.fontMetrics()
        gap = metrics.height() // 2
        self.setMinimumWidth(_NARROWEST_EMS * metrics.horizontalAdvance("m"))
        self.view.setReadOnly(True)
        self.view.setFrameShape(QFrame.Shape.NoFrame)
        self.view.setUndoRedoEnabled(False)
        self.view.setMinimumHeight(3 * metrics.lineSpacing())
        self.view.setTabChangesFocus(True)
        if (document := self.view.document()) is not None:
            document.setDocumentMargin(gap)
        self.view.setAccessibleName(f"Text of reply {self.index + 1}")
        self._state.setWordWrap(True)
        self._state.setTextFormat(Qt.TextFormat.PlainText)
        self._worker.setTextFormat(Qt.TextFormat.PlainText)
        self._reading.setTextVisible(False)
        self._reading.setMaximumHeight(max(4, gap // 2))
        self._reading.setAccessibleName(f"Prefill progress of reply {self.index + 1}")
        self.pick.setAutoDefault(False)
        if self.index < _KEYS:
            self.pick.setToolTip(f"Continue with this reply (key {self.index + 1})")
        self.pick.clicked.connect(lambda: self.picked.emit(self.index))
        head = QHBoxLayout()
        head.addWidget(self._head)
        head.addWidget(self._worker)
        head.addStretch(1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(gap, gap, gap, gap)
        layout.setSpacing(gap)
        layout.addLayout(head)
        layout.addWidget(self.view, 1)
        layout.addWidget(self._reading)
        layout.addWidget(self._state)
        layout.addWidget(self.pick)

    def _colour(self) -> None:
        theme = theme_of(self.palette())
        for label, colour in (
            (self._worker, theme.muted),
            (self._state, theme.warning if self.state == FAILED else theme.muted),
        ):
            palette = label.palette()
            palette.setColor(QPalette.ColorRole.WindowText, QColor(colour))
            label.setPalette(palette)
