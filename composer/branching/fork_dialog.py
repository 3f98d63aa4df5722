"""A dialog that asks for the name and the worker of a fork."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from PyQt6.QtCore import pyqtSignal
from PyQt6.QtGui import QColor, QPalette
from PyQt6.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from composer.reading.plain import displayable
from composer.reading.theme import theme_of
from ssmprov.errors import BadRequest
from ssmprov.names import MAX_NAME, check_name

ANY = "any worker"


class ForkDialog(QDialog):
    """Not modal. Says while you type if a name is not valid or already taken."""

    wanted = pyqtSignal(str, str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Fork here")
        self.setModal(False)
        self._taken: frozenset[str] = frozenset()
        self._what, self._problem = QLabel(), QLabel()
        self.name, self.worker = QLineEdit(), QComboBox()
        self._fork, self._cancel = QPushButton("&Fork"), QPushButton("&Cancel")
        self._build()

    def ask(self, what: str, workers: Sequence[str], suggestion: str = "") -> None:
        """Open for the checkpoint that `what` describes, with an empty name or a suggestion."""
        self._what.setText(displayable(what))
        self.worker.clear()
        self.worker.addItem(ANY, "")
        for worker in workers:
            self.worker.addItem(worker, worker)
        self.name.setText(suggestion)
        self.name.selectAll()
        self._check()
        self.open_beside()

    def open_beside(self) -> None:
        self.show()
        self.raise_()
        self.name.setFocus()

    def set_taken(self, names: Collection[str]) -> None:
        """The names that are in use."""
        self._taken = frozenset(names)
        self._check()

    def accept(self) -> None:
        if self.problem() == "":
            self.wanted.emit(self.name.text().strip(), self.worker.currentData() or "")
            super().accept()

    def problem(self) -> str | None:
        """What is wrong with the name; '' if it is good, None if it is empty."""
        name = self.name.text().strip()
        if not name:
            return None
        try:
            check_name(name)
        except BadRequest as error:
            return error.message
        return (
            f"“{name}” is taken: choose another name, such as {_free(name, self._taken)}" if name in self._taken else ""
        )

    def _build(self) -> None:
        em, gap = self.fontMetrics().horizontalAdvance("m"), self.fontMetrics().height() // 2
        self._what.setWordWrap(True)
        self._problem.setWordWrap(True)
        self._problem.setMinimumHeight(3 * self.fontMetrics().lineSpacing())  # so that the layout does not change
        self.name.setMaxLength(2 * MAX_NAME)
        self.name.setPlaceholderText("for example chapter-2 or try/darker")
        self.name.setAccessibleName("Name of the fork")
        self.name.setMinimumWidth(30 * em)
        self.name.textChanged.connect(self._check)
        self.worker.setAccessibleName("Worker of the fork")
        self.worker.setToolTip("The worker that keeps the fork in memory. Any worker can load it later.")
        self._fork.setDefault(True)
        buttons = QDialogButtonBox()
        buttons.addButton(self._fork, QDialogButtonBox.ButtonRole.AcceptRole)
        buttons.addButton(self._cancel, QDialogButtonBox.ButtonRole.RejectRole)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form = QFormLayout()
        form.setSpacing(gap)
        form.addRow("&Name", self.name)
        form.addRow("&Worker", self.worker)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * gap, 2 * gap, 2 * gap, 2 * gap)
        layout.setSpacing(gap)
        layout.addWidget(self._what)
        layout.addLayout(form)
        layout.addWidget(self._problem)
        layout.addStretch(1)
        layout.addWidget(buttons)

    def _check(self) -> None:
        problem = self.problem()
        self._fork.setEnabled(problem == "")
        theme = theme_of(self.palette())
        colour = theme.warning if problem else theme.muted
        palette = self._problem.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(colour))
        self._problem.setPalette(palette)
        self._problem.setText(displayable(problem or "A fork costs nothing: it is one more name for this checkpoint."))


def _free(name: str, taken: Collection[str]) -> str:
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"
