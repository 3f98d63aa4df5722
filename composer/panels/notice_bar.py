"""The bar that says what went wrong and what to do about it.

PyQt6 has no QAccessible, so the bar cannot send an alert. Instead it changes its accessible name, and Qt reports that
change to screen readers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PyQt6.QtCore import QRectF, Qt
from PyQt6.QtGui import QColor, QKeyEvent, QPainter, QPaintEvent, QPalette, QResizeEvent
from PyQt6.QtWidgets import (
    QApplication,
    QBoxLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QSizePolicy,
    QStyle,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

Action = tuple[str, Callable[[], None]]
ERROR, HINT = "error", "hint"
MOST = 5
DETAIL_LINES = 8
NARROW = 46
"""Below this width (in line heights), the buttons go below the message."""
_HUES = {ERROR: QColor(205, 70, 60), HINT: QColor(60, 120, 190)}
_SYMBOLS = {
    ERROR: QStyle.StandardPixmap.SP_MessageBoxWarning,
    HINT: QStyle.StandardPixmap.SP_MessageBoxInformation,
}
_SPOKEN = {ERROR: "Error", HINT: "Hint"}


def mixed(one: QColor, other: QColor, share: float) -> QColor:
    """A colour with this share of the other one mixed in."""

    def between(a: int, b: int) -> int:
        return round(a + (b - a) * share)

    return QColor(
        between(one.red(), other.red()), between(one.green(), other.green()), between(one.blue(), other.blue())
    )


@dataclass(frozen=True, slots=True)
class Notice:
    kind: str
    message: str
    actions: tuple[Action, ...] = ()
    details: str = ""


class NoticeBar(QFrame):
    """Shows the newest notice. Closing it shows the one before. Hidden without notices."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._notices: list[Notice] = []
        self.setAccessibleName("Notice")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        em = self.fontMetrics().height()

        self._symbol = QLabel()
        self._symbol.setMinimumWidth(em)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        self.message.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._more = QLabel()
        self._more.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        self._actions = QHBoxLayout()
        self._actions.setSpacing(em // 2)
        self._toggle = QPushButton("Details")
        self._toggle.setCheckable(True)
        self._toggle.setAccessibleName("Show the details")
        self._toggle.toggled.connect(self._show_details)
        self._close = QToolButton()
        self._close.setText("✕")
        self._close.setAutoRaise(True)
        self._close.setAccessibleName("Close this notice")
        self._close.setToolTip("Close (Esc)")
        self._close.clicked.connect(self.close_notice)
        self.details = QPlainTextEdit()
        self.details.setReadOnly(True)
        self.details.setTabChangesFocus(True)
        self.details.setAccessibleName("Details")
        self.details.setMinimumHeight(DETAIL_LINES * self.details.fontMetrics().lineSpacing())
        self.details.setMaximumHeight(DETAIL_LINES * self.details.fontMetrics().lineSpacing() + em)
        self.details.hide()

        said = QHBoxLayout()
        said.addWidget(self._symbol, 0, Qt.AlignmentFlag.AlignVCenter)
        said.addWidget(self.message, 1)
        choices = QHBoxLayout()
        choices.addStretch(1)
        choices.addWidget(self._more)
        choices.addLayout(self._actions)
        choices.addWidget(self._toggle)
        choices.addWidget(self._close)
        self._row = QBoxLayout(QBoxLayout.Direction.LeftToRight)
        self._row.addLayout(said, 1)
        self._row.addLayout(choices)
        for layout in (said, choices, self._row):
            layout.setSpacing(em // 2)
        column = QVBoxLayout(self)
        column.setContentsMargins(em * 3 // 4, em // 3, em // 3, em // 3)
        column.addLayout(self._row)
        column.addWidget(self.details)
        self.hide()

    # -- the notices

    def show_error(self, message: str, actions: Sequence[Action] = (), details: str = "") -> None:
        self._add(Notice(ERROR, message, tuple(actions), details))

    def show_hint(self, message: str, actions: Sequence[Action] = (), details: str = "") -> None:
        self._add(Notice(HINT, message, tuple(actions), details))

    def clear(self) -> None:
        self._notices.clear()
        self._refresh()

    def forget(self, message: str) -> None:
        """Remove a notice whose reason is gone."""
        self._notices = [notice for notice in self._notices if notice.message != message]
        self._refresh()

    def close_notice(self) -> None:
        """Close the shown notice."""
        if self._notices:
            self._notices.pop()
        self._refresh()

    @property
    def notices(self) -> list[Notice]:
        """All notices, oldest first. The last one is shown."""
        return list(self._notices)

    def _add(self, notice: Notice) -> None:
        self._notices = [known for known in self._notices if known.message != notice.message][-(MOST - 1) :]
        self._notices.append(notice)
        self._refresh()

    def _refresh(self) -> None:
        held_focus = self._holds_focus()
        while (item := self._actions.takeAt(0)) is not None:
            if (former := item.widget()) is not None:
                former.hide()
                former.deleteLater()
        self._toggle.setChecked(False)
        if not self._notices:
            if held_focus:
                self.focusNextChild()
            self.setAccessibleName("Notice")
            self.hide()
            return
        notice = self._notices[-1]
        if (style := self.style()) is not None:
            size = round(self.fontMetrics().height() * 1.4)
            self._symbol.setPixmap(style.standardIcon(_SYMBOLS[notice.kind]).pixmap(size, size))
        self.message.setText(notice.message)
        self._more.setText(f"{len(self._notices) - 1} more" if len(self._notices) > 1 else "")
        self._more.setVisible(len(self._notices) > 1)
        self.setAccessibleName(f"{_SPOKEN[notice.kind]}: {notice.message}")  # screen readers announce the change
        before: QWidget = self.message
        for text, action in notice.actions:
            button = QPushButton(text)
            button.setAccessibleName(text)
            button.clicked.connect(lambda _=False, do=action, of=notice: self._act(do, of))
            self._actions.addWidget(button)
            button.show()
            QWidget.setTabOrder(before, button)
            before = button
        self._toggle.setVisible(bool(notice.details))
        self.details.setPlainText(notice.details)
        self.show()
        self.update()
        if held_focus:
            self.setFocus()

    def _act(self, action: Callable[[], None], notice: Notice) -> None:
        """Run an action. Remove the notice first, because the action may show one of its own."""
        self._notices = [known for known in self._notices if known is not notice]
        self._refresh()
        action()

    def _show_details(self, shown: bool) -> None:
        self.details.setVisible(shown)
        self._toggle.setText("Hide details" if shown else "Details")

    # -- events

    def _holds_focus(self) -> bool:
        focused = QApplication.focusWidget()
        return focused is not None and (focused is self or self.isAncestorOf(focused))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Escape:
            self.close_notice()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Move the buttons below the message if the bar is narrow."""
        super().resizeEvent(event)
        narrow = self.width() < NARROW * self.fontMetrics().height() and self._actions.count() > 0
        wanted = QBoxLayout.Direction.TopToBottom if narrow else QBoxLayout.Direction.LeftToRight
        if self._row.direction() != wanted:
            self._row.setDirection(wanted)

    def paintEvent(self, _event: QPaintEvent | None) -> None:
        """Paint a tint of the window's colour, computed each time so that it follows light and dark themes."""
        if not self._notices:
            return
        hue = _HUES[self._notices[-1].kind]
        palette = self.palette()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        base = palette.color(QPalette.ColorRole.Window)
        focused = self.hasFocus()
        painter.setBrush(mixed(base, hue, 0.16))
        painter.setPen(palette.color(QPalette.ColorRole.Highlight) if focused else mixed(base, hue, 0.45))
        radius = self.fontMetrics().height() / 3
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), radius, radius)
        painter.end()
