"""The table of workers. It is updated in place."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import QModelIndex, QRectF, Qt
from PyQt6.QtGui import QColor, QPainter, QPalette
from PyQt6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from ssmprov.formatting import size
from ssmprov.ops import WorkerStatus

COLUMNS = ("Worker", "State", "Slots", "Decode/s", "Prefill/s", "In memory")
TIPS = (
    "Model and number",
    "ready, draining (finishes its turns, then ends) or stalled (does not answer)",
    "Contexts that the worker decodes now, out of all its slots",
    "Tokens decoded per second",
    "Prompt tokens read per second",
    "Size of the states that the worker keeps in memory",
)
SLOTS = 2
_SHARE = Qt.ItemDataRole.UserRole


class _Bar(QStyledItemDelegate):
    """Draws a number with a thin bar below it."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        super().paint(painter, option, index)
        share = index.data(_SHARE)
        if painter is None or not isinstance(share, float):
            return
        cell = QRectF(option.rect)
        margin = option.fontMetrics.height() / 4
        groove = QRectF(cell.left() + margin, cell.bottom() - margin - 1, cell.width() - 2 * margin, margin / 1.5)
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        faint = QColor(option.palette.color(QPalette.ColorRole.Text))
        faint.setAlphaF(0.15)
        painter.setBrush(faint)
        painter.drawRoundedRect(groove, groove.height() / 2, groove.height() / 2)
        groove.setWidth(groove.width() * min(1.0, max(0.0, share)))
        painter.setBrush(option.palette.color(QPalette.ColorRole.Highlight))
        painter.drawRoundedRect(groove, groove.height() / 2, groove.height() / 2)
        painter.restore()


class WorkerTable(QTableWidget):
    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, len(COLUMNS), parent)
        self.setAccessibleName("Workers")
        self.setHorizontalHeaderLabels(COLUMNS)
        for column, tip in enumerate(TIPS):
            if (item := self.horizontalHeaderItem(column)) is not None:
                item.setToolTip(tip)
                if column > SLOTS:
                    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self._lengths = [0] * len(COLUMNS)  # of the longest text that fits into each column
        self.resizeColumnsToContents()
        self.setItemDelegateForColumn(SLOTS, _Bar(self))
        if (rows := self.verticalHeader()) is not None:
            rows.hide()
        if (header := self.horizontalHeader()) is not None:
            header.setHighlightSections(False)
            header.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
            header.setStretchLastSection(True)
            header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)

    def show_workers(self, workers: Sequence[WorkerStatus]) -> None:
        """Show the workers. Each keeps its row, so the selection stays."""
        wanted = {worker.name: worker for worker in workers}
        for row in reversed(range(self.rowCount())):
            if self._name(row) not in wanted:
                self.removeRow(row)
        longest = list(self._lengths)
        for worker in sorted(workers, key=lambda worker: (worker.model, len(worker.name), worker.name)):
            row = self._row(worker.name)
            texts = (
                worker.name,
                worker.state,
                f"{worker.running} / {worker.slots}",
                f"{worker.tokens_per_s:.0f}",
                f"{worker.prefill_per_s:.0f}",
                size(worker.hot_bytes),
            )
            for column, text in enumerate(texts):
                item = self.item(row, column)
                if item is not None and item.text() != text:
                    item.setText(text)
                    longest[column] = max(longest[column], len(text))
            if (item := self.item(row, SLOTS)) is not None:
                item.setData(_SHARE, worker.running / max(1, worker.slots))
        if longest != self._lengths:  # measuring at every change would be slow
            self._lengths = longest
            self.resizeColumnsToContents()

    def _name(self, row: int) -> str:
        item = self.item(row, 0)
        return item.text() if item is not None else ""

    def _row(self, name: str) -> int:
        for row in range(self.rowCount()):
            if self._name(row) == name:
                return row
        row = self.rowCount()
        self.insertRow(row)
        for column in range(self.columnCount()):
            item = QTableWidgetItem(name if column == 0 else "")
            if column > SLOTS:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(row, column, item)
        self.setRowHeight(row, round(self.fontMetrics().height() * 2))
        return row
