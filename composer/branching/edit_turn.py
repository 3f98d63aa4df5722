"""A dialog that edits a turn of yours or of the model. The turns that followed it stay on the old branch."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import Qt, pyqtSignal
from PyQt6.QtGui import QColor, QKeySequence, QPalette, QShortcut
from PyQt6.QtWidgets import (
    QComboBox,
    QDialog,
    QHBoxLayout,
    QLabel,
    QPlainTextEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from composer.branching.question import Question
from composer.reading.plain import displayable
from composer.reading.theme import theme_of
from ssmprov.errors import BadRequest
from ssmprov.transcript import check_role


class EditTurnDialog(QDialog):
    """Not modal. Esc asks before it discards a changed text."""

    wanted = pyqtSignal(str, str, bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setModal(False)
        self._role = self._content = self._shown = ""
        self.role, self.content = QComboBox(), QPlainTextEdit()
        self._problem = QLabel()
        self.regenerate = QPushButton("Save and &regenerate")
        self.only_change = QPushButton("&Save only")
        self.cancel = QPushButton("&Cancel")
        self.question = Question("&Discard", "&Keep editing")
        self._build()

    def show_turn(self, number: int, role: str, content: str, roles: Sequence[str] = ()) -> None:
        """Open for a turn. `roles` are offered in addition to its own."""
        self._role, self._content = role, content
        self._shown = displayable(content)
        self.setWindowTitle(f"Edit turn {number}")
        self.question.hide()
        self.role.clear()
        self.role.addItems(list(dict.fromkeys([role, *roles])))
        self.role.setCurrentText(role)
        self.content.setPlainText(self._shown)
        self._check()
        self.show()
        self.raise_()
        self.content.setFocus()

    @property
    def changed(self) -> bool:
        return self._typed() != self._shown or self.role.currentText().strip() != self._role

    def text(self) -> str:
        """The content. Byte for byte the original if it was not changed."""
        typed = self._typed()
        return self._content if typed == self._shown else typed

    def reject(self) -> None:
        """Qt calls this for Esc and for the close button of the window."""
        if self.changed and self.isVisible():
            self.question.ask("You have changed this turn. Discard the changes?")
        else:
            super().reject()

    # -- internals

    def _build(self) -> None:
        em, gap = self.fontMetrics().horizontalAdvance("m"), self.fontMetrics().height() // 2
        self.role.setEditable(True)
        self.role.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.role.setAccessibleName("Role")
        self.role.setMinimumWidth(16 * em)
        self.content.setAccessibleName("Content of the turn")
        self.content.setTabChangesFocus(True)
        if (document := self.content.document()) is not None:
            document.setDocumentMargin(gap)
        self.regenerate.setToolTip("The model reads the changed turn and writes a new reply (Ctrl+Enter)")
        self.only_change.setToolTip("The model reads the changed turn and writes nothing (Ctrl+Shift+Enter)")
        self.role.currentTextChanged.connect(self._check)
        self.content.textChanged.connect(self._check)
        self.regenerate.clicked.connect(lambda: self._want(regenerate=True))
        self.only_change.clicked.connect(lambda: self._want(regenerate=False))
        self.cancel.clicked.connect(self.close)
        for key, button in (
            *((key, self.regenerate) for key in ("Ctrl+Return", "Ctrl+Enter")),
            *((key, self.only_change) for key in ("Ctrl+Shift+Return", "Ctrl+Shift+Enter")),
        ):
            QShortcut(QKeySequence(key), self, button.click)
        self.question.accepted.connect(self._throw_away)
        self.question.declined.connect(lambda: self.content.setFocus(Qt.FocusReason.OtherFocusReason))
        label = QLabel("R&ole")
        label.setBuddy(self.role)
        self._problem.setWordWrap(True)
        head = QHBoxLayout()
        head.setSpacing(gap)
        for widget in (label, self.role):
            head.addWidget(widget)
        head.addWidget(self._problem, 1)
        foot = QHBoxLayout()
        foot.setSpacing(gap)
        foot.addStretch(1)
        for button in (self.cancel, self.only_change, self.regenerate):
            button.setAutoDefault(False)
            foot.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2 * gap, 2 * gap, 2 * gap, 2 * gap)
        layout.setSpacing(gap)
        layout.addLayout(head)
        layout.addWidget(self.content, 1)
        layout.addWidget(self.question)
        layout.addLayout(foot)
        self.resize(60 * em, 36 * em)

    def _typed(self) -> str:
        """The text of the field. toPlainText would replace no-break spaces."""
        document = self.content.document()
        return document.toRawText().replace("\u2029", "\n") if document is not None else ""

    def _check(self) -> None:
        problem = ""
        try:
            check_role(self.role.currentText().strip())
        except BadRequest as error:
            problem = error.message
        self._problem.setText(displayable(problem))
        palette = self._problem.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(theme_of(self.palette()).warning))
        self._problem.setPalette(palette)
        self.regenerate.setEnabled(not problem)
        self.only_change.setEnabled(not problem and self.changed)

    def _want(self, *, regenerate: bool) -> None:
        role, content = self.role.currentText().strip(), self.text()
        self.accept()
        self.wanted.emit(role, content, regenerate)

    def _throw_away(self) -> None:
        self.content.setPlainText(self._shown)
        self.role.setCurrentText(self._role)
        self.close()
