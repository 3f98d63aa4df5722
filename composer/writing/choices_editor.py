"""A dialog that edits the list behind one drop-down as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QCloseEvent, QColor, QFontDatabase, QKeySequence, QPalette, QShortcut, QTextFormat
from PyQt6.QtWidgets import QDialog, QHBoxLayout, QLabel, QPlainTextEdit, QPushButton, QTextEdit, QVBoxLayout, QWidget

from composer.panels.notice_bar import mixed
from composer.writing.choices import DIVIDER, MAX_BYTES, OPENING, REPLY, Choices, default_text, read_lines
from ssmprov import durable
from ssmprov.causes import explained

TITLES = {OPENING: "From", DIVIDER: "Then", REPLY: "Reply"}
EXAMPLES = {True: r'"\n\n~~~(end)~~~\n\n"', False: '"[USER]: "'}
SHOWN_TROUBLES = 4
_RED = QColor(205, 70, 60)


class ChoicesEditor(QDialog):
    """Edits `.s1.txt`, `.s2.txt` or `.s3.txt`. Stays open if the file cannot be saved."""

    def __init__(self, choices: Choices, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.choices = choices
        self.name = name
        self.path: Path = choices.path(name)
        self.setWindowTitle(f"Edit list: {TITLES[name]}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._warned = False  # that the changes are not saved
        self._on_disk = self._read()

        example = EXAMPLES[name == DIVIDER]
        hint = QLabel(f"Write one entry per line, in quotes, for example {example}. The file is {self.path}.")
        hint.setWordWrap(True)
        hint.setTextFormat(Qt.TextFormat.PlainText)
        self.editor = QPlainTextEdit()
        self.editor.setTabChangesFocus(True)
        self.editor.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.editor.setAccessibleName(f"Entries of the list {TITLES[name]}, one per line, in quotes")
        self.editor.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        text = default_text(name) if self._on_disk is None else self._on_disk.decode("utf-8", "replace")
        self.editor.setPlainText(text)
        self._first = self.text
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        self.status.setAccessibleName("Errors in the list")
        self.usual = QPushButton("Restore defaults")
        self.usual.setToolTip("Replace the list with the entries that ssmprov comes with")
        self.cancel = QPushButton("Close")
        self.save = QPushButton("Save")
        for button in (self.usual, self.cancel, self.save):
            button.setAccessibleName(button.text())
            button.setAutoDefault(False)
        self.save.setToolTip("Save (Ctrl+S)")

        em = self.fontMetrics().height()
        row = QHBoxLayout()
        row.addWidget(self.usual)
        row.addStretch(1)
        row.addWidget(self.cancel)
        row.addWidget(self.save)
        column = QVBoxLayout(self)
        column.setSpacing(em // 2)
        for widget, stretch in ((hint, 0), (self.editor, 1), (self.status, 0)):
            column.addWidget(widget, stretch)
        column.addLayout(row)
        self.resize(34 * em, 24 * em)

        self.editor.textChanged.connect(self._changed)
        self.usual.clicked.connect(lambda: self._replace(default_text(name)))
        self.cancel.clicked.connect(self.reject)
        self.save.clicked.connect(self.save_now)
        QShortcut(QKeySequence(QKeySequence.StandardKey.Save), self, self.save_now)
        self.editor.setFocus()
        self._changed()

    @property
    def text(self) -> str:
        document = self.editor.document()
        assert document is not None
        text: str = document.toRawText()  # toPlainText would turn no-break spaces into blanks
        return text.replace("\u2029", "\n")

    @property
    def modified(self) -> bool:
        return self.text != self._first

    def save_now(self) -> None:
        """Write the file atomically and close. If that fails, show the reason and stay open."""
        text = self.text
        data = (text if not text or text.endswith("\n") else text + "\n").encode("utf-8", "replace")
        if len(data) > MAX_BYTES:
            self._say(f"The list is too long: shorten it to at most {MAX_BYTES // 1024} KiB.")
            return
        now = self._read()
        if now != self._on_disk:
            self._on_disk = now
            self._say("Another program has changed the file. Save again to overwrite its changes.")
            return
        try:
            durable.replace(self.path, data)
        except OSError as error:
            self._say(explained(error, "Not saved", self.path).message)
            return
        self._first = text
        self.choices.refresh()
        self.accept()

    def reject(self) -> None:
        """Close. If there are unsaved changes, warn once first."""
        if self.modified and not self._warned:
            self._warned = True
            self.cancel.setText("Discard")
            self._say("Your changes are not saved. Press Ctrl+S to save them, or Esc again to discard them.")
            return
        super().reject()

    def closeEvent(self, event: QCloseEvent | None) -> None:
        if event is not None and self.modified and not self._warned:
            event.ignore()
            self.reject()
            return
        super().closeEvent(event)

    def _read(self) -> bytes | None:
        try:
            if not self.path.is_file():
                return None
            with self.path.open("rb") as file:
                return file.read(2 * MAX_BYTES)
        except OSError:
            return None

    def _replace(self, text: str) -> None:
        cursor = self.editor.textCursor()
        cursor.select(cursor.SelectionType.Document)
        cursor.insertText(text)  # so that it can be undone

    def _changed(self) -> None:
        self._warned = False
        self.cancel.setText("Close")
        values, troubles = read_lines(self.text.encode("utf-8", "replace"))
        self._mark([number for number, _ in troubles])
        lines = [f"Line {number}: {what}." for number, what in troubles[:SHOWN_TROUBLES]]
        if len(troubles) > SHOWN_TROUBLES:
            lines.append(f"{len(troubles) - SHOWN_TROUBLES} more lines have errors.")
        entries = "1 entry" if len(values) == 1 else f"{len(values)} entries"
        self._say("\n".join(lines) or f"{entries}, no errors.")

    def _mark(self, numbers: Sequence[int]) -> None:
        document = self.editor.document()
        assert document is not None
        marks = []
        for number in numbers:
            mark = QTextEdit.ExtraSelection()
            mark.cursor = self.editor.textCursor()
            mark.cursor.setPosition(document.findBlockByNumber(number - 1).position())
            mark.format.setBackground(mixed(self.palette().color(QPalette.ColorRole.Base), _RED, 0.22))
            mark.format.setProperty(QTextFormat.Property.FullWidthSelection, True)
            marks.append(mark)
        self.editor.setExtraSelections(marks)

    def _say(self, text: str) -> None:
        self.status.setText(text)
