"""Lets a view follow new text at its end. It stops when the user scrolls up, and resumes at the bottom."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from PyQt6.QtCore import QObject, pyqtSignal
from PyQt6.QtWidgets import QAbstractScrollArea, QScrollBar


class Following(QObject):
    """Watches the vertical scroll bar of a view. `on` says whether it follows."""

    changed = pyqtSignal(bool)

    def __init__(self, area: QAbstractScrollArea) -> None:
        super().__init__(area)
        bar = area.verticalScrollBar()
        assert bar is not None
        self._bar: QScrollBar = bar
        self._held = 0
        self.on = True
        bar.valueChanged.connect(self._moved)
        bar.rangeChanged.connect(self._ranged)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Ignore moves of the scroll bar while the text changes, and then return to the end if it follows."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._ranged()

    def to_end(self) -> None:
        self.set(True)
        self._ranged()

    def set(self, on: bool) -> None:
        if on != self.on:
            self.on = on
            self.changed.emit(on)

    def _moved(self, value: int) -> None:
        if not self._held:
            self.set(value >= self._bar.maximum() - self._bar.singleStep() // 2)

    def _ranged(self) -> None:
        if self.on and not self._held:
            self._held += 1
            self._bar.setValue(self._bar.maximum())
            self._held -= 1
