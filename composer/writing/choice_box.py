"""A drop-down of the compose panel: a blank entry, the entries of its file, and "Edit list…"."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import QSignalBlocker, Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent, QWheelEvent
from PyQt6.QtWidgets import QComboBox, QWidget

from composer.writing.choices import label

EDIT = "Edit list…"


class ChoiceBox(QComboBox):
    """Keeps the chosen value when the file changes, even if the file no longer contains it."""

    edit_wanted = pyqtSignal()

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setMinimumContentsLength(10)
        self._values: list[str] = []
        self._chosen = ""
        self._by_hand = False  # a key or the wheel changes the closed box
        self.activated.connect(self._on_activated)

    @property
    def chosen(self) -> str:
        """The value chosen, '' for none."""
        return self._chosen

    def choose(self, value: str) -> None:
        self._chosen = value
        self.offer(self._values)

    def offer(self, values: Sequence[str]) -> None:
        """Show these values."""
        self._values = list(values)
        shown = ["", *self._values]
        if self._chosen not in shown:
            shown.append(self._chosen)
        with QSignalBlocker(self):
            self.clear()
            for value in shown:
                self.addItem(label(value), value)
                self.setItemData(self.count() - 1, repr(value) if value else "Nothing", Qt.ItemDataRole.ToolTipRole)
            self.insertSeparator(self.count())
            self.addItem(EDIT)
            self._show_chosen()
        self._widen()

    def _widen(self) -> None:
        view = self.view()
        if view is not None:  # wide enough for the longest entry
            view.setMinimumWidth(view.sizeHintForColumn(0) + 2 * self.fontMetrics().height())

    def _show_chosen(self) -> None:
        self.setCurrentIndex(["", *self._values, self._chosen].index(self._chosen))

    def _on_activated(self, index: int) -> None:
        if index == self.count() - 1:
            self._show_chosen()
            if not self._by_hand:
                self.edit_wanted.emit()
            return
        self._chosen = str(self.itemData(index) or "")

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        self._by_hand = True  # the open list handles its own keys, so Enter on "Edit list…" opens the editor
        try:
            super().keyPressEvent(event)
        finally:
            self._by_hand = False

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is None:
            return
        if not self.hasFocus():
            event.ignore()  # scrolling past the box must not change it
            return
        self._by_hand = True
        try:
            super().wheelEvent(event)
        finally:
            self._by_hand = False
