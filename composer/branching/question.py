"""A question inside a window, instead of a message box in front of it."""

from __future__ import annotations

from PyQt6.QtCore import Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent
from PyQt6.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget


class Question(QFrame):
    """Hidden until `ask`; either answer hides it. Esc declines, and so does Enter at first."""

    accepted = pyqtSignal()
    declined = pyqtSignal()

    def __init__(self, yes: str, no: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.setAutoFillBackground(True)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.yes, self.no = QPushButton(yes), QPushButton(no)
        for button, answer in ((self.yes, self.accepted), (self.no, self.declined)):
            button.setAutoDefault(True)  # Enter presses the focused one
            button.clicked.connect(self.hide)
            button.clicked.connect(answer)
        gap = self.fontMetrics().height() // 2
        layout = QVBoxLayout(self)
        layout.setContentsMargins(gap, gap, gap, gap)
        layout.setSpacing(gap)
        layout.addWidget(self.text)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.no)
        row.addWidget(self.yes)
        layout.addLayout(row)
        self.hide()

    def ask(self, text: str) -> None:
        self.text.setText(text)
        self.setAccessibleName(text)
        self.show()
        self.no.setFocus(Qt.FocusReason.OtherFocusReason)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Escape:
            self.no.click()
            return
        super().keyPressEvent(event)
