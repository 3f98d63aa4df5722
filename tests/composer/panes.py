"""Panes with a transcript in them, and what the tests of the pane do to them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PyQt6.QtCore import QPoint, QPointF, Qt
from PyQt6.QtGui import QWheelEvent
from PyQt6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from composer.reading.book import Book
from composer.reading.transcript_pane import TranscriptPane
from ssmprov.transcript import turn

Show = Callable[[str], TranscriptPane]


def turns(count: int, begin: int = 1) -> str:
    return "".join(turn(number, "USER", f"says {number}\n\nand more") for number in range(begin, begin + count))


def open_pane(qtbot: QtBot, directory: Path) -> TranscriptPane:
    pane = TranscriptPane(Book(directory))
    pane.book.setParent(pane)
    qtbot.addWidget(pane)
    pane.resize(600, 400)
    with qtbot.waitExposed(pane):
        pane.show()
    return pane


def drawn(pane: TranscriptPane) -> str:
    """What the rendered tab says now, without the lines of no height between the items."""
    pane.rendered.update_now()
    lines = pane.rendered.toPlainText().replace("\u00a0", " ").split("\n")
    return "\n".join(" ".join(line.split()) for line in lines if line.strip())


def filled(qtbot: QtBot, pane: TranscriptPane, count: int) -> None:
    qtbot.waitUntil(lambda: len(pane.rendered.loaded) >= count)


def wheel(widget: TranscriptPane, steps: int, keys: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    port = widget.rendered.port
    point = QPointF(50, 50)
    event = QWheelEvent(
        point,
        QPointF(port.mapToGlobal(QPoint(50, 50))),
        QPoint(),
        QPoint(0, 120 * steps),
        Qt.MouseButton.NoButton,
        keys,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(port, event)
