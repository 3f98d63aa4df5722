"""The dialogs of the Help menu, and the dialog that shows a probe."""

from __future__ import annotations

from PyQt6.QtCore import Qt
from PyQt6.QtGui import QFontDatabase
from PyQt6.QtWidgets import QDialog, QMessageBox, QPlainTextEdit, QTextBrowser, QVBoxLayout, QWidget

from composer.actions import keys_text
from ssmprov import __version__

ABOUT = (
    f"<b>ssmprov Composer {__version__}</b><p>A window for writing with the contexts of recurrent language models, "
    "turn by turn and branch by branch.<p>ssmprov is under the MIT licence. PyQt6, which draws this window, is under "
    "GPL-3.0."
)


def show_keys(window: QWidget, send_key: str) -> None:
    """Show all shortcuts in a list that scrolls."""
    dialog = QDialog(window)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle("Keyboard shortcuts")
    text = QTextBrowser()
    text.setAccessibleName("Keyboard shortcuts")
    text.setHtml(keys_text(send_key))
    column = QVBoxLayout(dialog)
    column.addWidget(text)
    em = window.fontMetrics().horizontalAdvance("M")
    dialog.resize(em * 34, min(em * 50, window.height()))
    dialog.show()


def show_probe(window: QWidget, text: str) -> None:
    """Show what a probe saw, in columns. Several can be open at once to compare them."""
    dialog = QDialog(window)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.setWindowTitle("Probe")
    view = QPlainTextEdit(text)
    view.setReadOnly(True)
    view.setAccessibleName("Probe")
    view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
    view.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
    QVBoxLayout(dialog).addWidget(view)
    width = max(map(view.fontMetrics().horizontalAdvance, text.split("\n")))
    em = window.fontMetrics().horizontalAdvance("M")
    dialog.resize(min(width + 4 * em, max(40 * em, window.width())), min(em * 40, window.height()))
    dialog.show()


def show_about(window: QWidget) -> None:
    box = QMessageBox(window)
    box.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    box.setWindowTitle("About")
    box.setTextFormat(Qt.TextFormat.RichText)
    box.setText(ABOUT)
    box.open()
