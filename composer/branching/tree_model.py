"""The forest as a Qt model. Indexes store row numbers, so no index can point to a deleted row."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PyQt6.QtCore import QAbstractItemModel, QModelIndex, QObject, Qt

from composer.branching.forest import Line, Node
from composer.reading.plain import displayable
from ssmprov.formatting import moment, size

WHAT, TOKENS, SIZE, WORKER, AGE = range(5)
HEADERS = ("Checkpoint", "Tokens", "Size", "Worker", "Age")
_ALIGNMENT = {
    WHAT: Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter,
    WORKER: Qt.AlignmentFlag.AlignCenter,
}
_RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_NOWHERE = QModelIndex()
_TOP = -1


@dataclass(slots=True)
class _Entry:
    line: Line
    parent: int
    row: int
    children: list[int] = field(default_factory=list)


class TreeModel(QAbstractItemModel):
    """Rows of `composer.branching.forest.lay_out`. An index's internal id is the row's number in `_entries`."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._entries: list[_Entry] = []
        self._top: list[int] = []
        self._by_key: dict[str, int] = {}

    def show_lines(self, lines: Sequence[Line]) -> None:
        self.beginResetModel()
        self._entries, self._top = [], []
        pending: list[tuple[int, Sequence[Line]]] = [(_TOP, lines)]
        while pending:
            parent, below = pending.pop()
            into = self._top if parent == _TOP else self._entries[parent].children
            for row, line in enumerate(below):
                number = len(self._entries)
                self._entries.append(_Entry(line, parent, row))
                into.append(number)
                if line.lines:
                    pending.append((number, line.lines))
        self._by_key = {entry.line.key: number for number, entry in enumerate(self._entries)}
        self.endResetModel()

    def line(self, index: QModelIndex) -> Line | None:
        return self._entries[index.internalId()].line if index.isValid() else None

    def index_of(self, key: str) -> QModelIndex:
        """The index of a checkpoint or of any row's key; an invalid index if it is not in the tree."""
        number = self._by_key.get(key)
        return _NOWHERE if number is None else self._index(number, WHAT)

    def branching(self) -> Iterator[QModelIndex]:
        """Every row that has rows below it, outer rows first."""
        for number, entry in enumerate(self._entries):
            if entry.children:
                yield self._index(number, WHAT)

    def tell_ages(self) -> None:
        """Update the ages as time passes."""
        for below in [self._top, *(entry.children for entry in self._entries if entry.children)]:
            if below:
                first, last = self._index(below[0], AGE), self._index(below[-1], AGE)
                self.dataChanged.emit(first, last, [Qt.ItemDataRole.DisplayRole])

    # -- called by Qt

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:
        if parent.column() > WHAT:
            return 0
        return len(self._below(parent))

    def columnCount(self, parent: QModelIndex = _NOWHERE) -> int:  # noqa: ARG002
        return len(HEADERS)

    def index(self, row: int, column: int, parent: QModelIndex = _NOWHERE) -> QModelIndex:
        below = self._below(parent)
        if not 0 <= row < len(below) or not 0 <= column < len(HEADERS):
            return QModelIndex()
        return self.createIndex(row, column, below[row])

    def parent(self, index: QModelIndex) -> QModelIndex:  # type: ignore[override]
        if not index.isValid():
            return QModelIndex()
        above = self._entries[index.internalId()].parent
        return QModelIndex() if above == _TOP else self._index(above, WHAT)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> str | Qt.AlignmentFlag | None:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(HEADERS):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return HEADERS[section]
        return _ALIGNMENT.get(section, _RIGHT) if role == Qt.ItemDataRole.TextAlignmentRole else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        line = self.line(index)
        if line is None:
            return None
        match role:
            case Qt.ItemDataRole.DisplayRole:
                return _cell(line, index.column())
            case Qt.ItemDataRole.TextAlignmentRole:
                return _ALIGNMENT.get(index.column(), _RIGHT)
            case Qt.ItemDataRole.AccessibleTextRole if index.column() == WHAT:
                return spoken(line)
            case Qt.ItemDataRole.ToolTipRole:
                return _explained(line)
        return None

    def _below(self, parent: QModelIndex) -> list[int]:
        return self._entries[parent.internalId()].children if parent.isValid() else self._top

    def _index(self, number: int, column: int) -> QModelIndex:
        return self.createIndex(self._entries[number].row, column, number)


def age(created: float, now: float) -> str:
    """The time since creation, in short form."""
    if not created:
        return ""
    seconds = max(0.0, now - created)
    for unit, length, until in (("min", 60, 3600), ("h", 3600, 86400), ("d", 86400, float("inf"))):
        if seconds < until:
            return f"{int(seconds // length)} {unit}" if seconds >= 60 else "now"
    return ""


def spoken(line: Line) -> str:
    """A row as a screen reader says it."""
    if line.node is None:
        return f"{len(line.folded)} steps, folded"
    node = line.node
    words = [
        f"branch: {node.label}" if line.starts and node.parent else node.label,
        f"named {', '.join(node.names)}" if node.names else "",
        "you are here" if node.head else ("on the current path" if node.on_path else ""),
        node.excerpt if node.title else "",
    ]
    return displayable(", ".join(word for word in words if word))


def _cell(line: Line, column: int) -> str:
    if line.node is None:
        if column == TOKENS:
            return f"+{sum(node.step_tokens for node in line.folded):,}"
        return f"{len(line.folded)} steps" if column == WHAT else ""
    node = line.node
    if column == WHAT:
        return displayable(node.label)
    if column == TOKENS:
        return f"{node.tokens:,}"
    if column == AGE:
        return age(node.created, time.time())
    if column == WORKER:
        number = node.worker.rpartition("/")[2]  # all rows have the same model
        return f"{number} (pinned)" if node.pinned else number
    return size(node.bytes) if node.bytes else ("" if node.stored else "as text")


def _explained(line: Line) -> str:
    if line.node is None:
        return f"{len(line.folded)} steps without names. Press Right or click the arrow to show them."
    return _node_explained(line.node)


def _node_explained(node: Node) -> str:
    words = [
        node.title,
        node.excerpt,
        f"Names: {', '.join(node.names)}" if node.names else "",
        f"{node.tokens:,} tokens read" + (f", {node.step_tokens:,} since the previous one" if node.parent else ""),
        f"State: {size(node.bytes)}" if node.bytes else "",
        "" if node.stored else "Its state is not stored, so going here reads the text again.",
        f"{'Pinned to' if node.pinned else 'In memory on'} {node.worker}" if node.worker else "",
        f"Created {moment(node.created)}" if node.created else "",
        f"#{node.object}",
    ]
    return displayable("\n".join(word for word in words if word))
