"""The panel where you write and send a turn: bang line, three drop-downs, prompt and buttons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from PyQt6.QtCore import Qt, QTimer, pyqtSignal
from PyQt6.QtGui import QDragEnterEvent, QDropEvent, QFont, QPalette
from PyQt6.QtWidgets import QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from composer.writing.choice_box import EDIT, ChoiceBox
from composer.writing.choices import DIVIDER, LISTS, OPENING, REPLY, Choices, role_literal
from composer.writing.choices_editor import TITLES, ChoicesEditor
from composer.writing.draft import NOTHING, Draft
from composer.writing.prompt_edit import PromptEdit, local_files
from ssmprov.transcript import FENCE, HALF_FENCE

USUAL = {OPENING: role_literal("USER"), DIVIDER: FENCE, REPLY: role_literal("INTERFACE")}
TIPS = {
    OPENING: "The role of the text that you send",
    DIVIDER: "How the text ends. Half step: the model only reads it. Full step: the model replies.",
    REPLY: "The role of the turn that the model writes",
}
BANG_TIP = (
    "Optional: !CONTEXT SETTINGS SAVE\nThe turn starts from this context, uses this sampling set, and is also saved "
    "under this name. The live context continues from there."
)
BUSY = "A turn is running. Wait for it to end, or press Esc to stop it. Your text stays here."
MAX_STATE_CHARS = 1 << 20

Trouble = Literal["", "draft", "busy", "empty", "lists"]
"""What the notice of the panel is about: the draft, a running turn, an empty prompt, or the files of the lists."""


class ComposePanel(QWidget):
    """Makes Drafts. If a draft cannot be sent, `trouble` says why."""

    sent = pyqtSignal(object)  # Draft
    stop_wanted = pyqtSignal()
    files_dropped = pyqtSignal(list)  # list[Path]
    trouble = pyqtSignal(str)  # a sentence for the notice bar; '' clears it

    def __init__(self, directory: Path, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Compose")
        self.setAcceptDrops(True)
        self.choices = Choices(directory, self)
        self._editors: dict[str, ChoicesEditor] = {}
        self._busy = False
        self._in_flight: Draft | None = None
        self._shown: Trouble = ""  # the trouble that is shown now

        # In tab order.
        self.prompt = PromptEdit(self)
        self.boxes = {name: ChoiceBox(TITLES[name], TIPS[name], self) for name in LISTS}
        self.send_button = self._button("Send", "Send the text as set in the lists above", self.send)
        bold = QFont()
        bold.setBold(True)  # only the weight, so that it follows the application's font
        self.send_button.setFont(bold)
        self.half_button = self._button("Half step", "The model reads your text and does not reply", self.send_half)
        self.full_button = self._button("Full step", "The model reads your text and writes a reply", self.send_full)
        self.raw_button = self._button("Raw", "Send the text as it is, without header and fence", self.send_raw)
        self.stop_button = self._button("Stop", "Stop the turn and keep what was written (Esc)", self.stop_wanted.emit)
        self.bang = QLineEdit(self)
        self.bang.setPlaceholderText("!primed standard onestep")
        self.bang.setToolTip(BANG_TIP)
        self.bang.setAccessibleName("Bang line")
        self.bang.setAccessibleDescription(BANG_TIP)
        self.bang.setClearButtonEnabled(True)
        self.count = QLabel()
        self.count.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        self.count.setAccessibleName("Length of the text")

        self._arrange()
        for name, box in self.boxes.items():
            box.offer(self.choices.values(name))
            box.choose(USUAL[name])
            box.edit_wanted.connect(lambda name=name: self.edit_list(name))
        self.choices.changed.connect(self._on_list_changed)
        self.prompt.send_wanted.connect(self.send)
        self.prompt.textChanged.connect(self._on_text)
        self.prompt.files_dropped.connect(self._on_files)
        self.bang.returnPressed.connect(self.send)
        self.set_busy(False)
        self._on_text()
        QTimer.singleShot(0, self._tell_lists)  # later, when the signals are connected

    def _button(self, text: str, tip: str, do: Callable[[], None]) -> QPushButton:
        button = QPushButton(text, self)
        button.setToolTip(tip)
        button.setAccessibleName(text)
        button.setAccessibleDescription(tip)
        button.setAutoDefault(False)
        button.clicked.connect(lambda _=False: do())
        return button

    def _arrange(self) -> None:
        em = self.fontMetrics().height()
        lists = QHBoxLayout()
        lists.setSpacing(em // 3)
        for name, box in self.boxes.items():
            title = QLabel(TITLES[name])
            title.setBuddy(box)
            title.setForegroundRole(QPalette.ColorRole.PlaceholderText)
            lists.addWidget(title)
            lists.addWidget(box, 1)
            lists.addSpacing(em // 2)
        lists.addStretch(1)
        buttons = QHBoxLayout()
        buttons.setSpacing(em // 2)
        for button in (self.send_button, self.half_button, self.full_button, self.raw_button, self.stop_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addWidget(self.count)
        column = QVBoxLayout(self)
        column.setContentsMargins(em // 2, em // 3, em // 2, em // 2)
        column.setSpacing(em // 2)
        column.addWidget(self.bang)
        column.addLayout(lists)
        column.addWidget(self.prompt, 1)
        column.addLayout(buttons)

    # -- sending

    def draft(self) -> Draft:
        """What Send would send."""
        opening, divider, reply = (self.boxes[name].chosen for name in LISTS)
        return Draft(self.prompt.text, bang=self.bang.text().strip(), opening=opening, divider=divider, reply=reply)

    def send(self) -> None:
        """Send the draft with the drop-downs' values."""
        self._send(self.draft())

    def send_half(self) -> None:
        """Send a closed turn that the model only reads."""
        draft = self.draft()
        if not draft.slash and not draft.opening and draft.text:
            self._say("A half step needs a role: choose one under From.")
            return
        self._send(Draft(draft.text, bang=draft.bang, opening=draft.opening, divider=HALF_FENCE))

    def send_full(self) -> None:
        """Send a closed turn and ask for a reply."""
        draft = self.draft()
        for chosen, title in ((draft.opening, TITLES[OPENING]), (draft.reply, TITLES[REPLY])):
            if not draft.slash and not chosen and draft.text:
                self._say(f"A full step needs two roles: choose one under {title}.")
                return
        self._send(Draft(draft.text, bang=draft.bang, opening=draft.opening, divider=FENCE, reply=draft.reply))

    def send_raw(self) -> None:
        """Send the text as it is."""
        self._send(Draft(self.prompt.text, bang=self.bang.text().strip()))

    def _send(self, draft: Draft) -> None:
        if self._busy:
            self._say(BUSY, "busy")
        elif draft.empty:
            self._say(NOTHING, "empty")
            self.focus_prompt()
        elif problem := draft.problem():
            self._say(problem)
        else:
            self._say("")
            self._in_flight = draft
            self.sent.emit(draft)

    def _say(self, sentence: str, what: Trouble = "draft") -> None:
        """Show a trouble; '' clears the one that is shown."""
        if sentence or self._shown:
            self._shown = what if sentence else ""
            self.trouble.emit(sentence)

    def set_busy(self, busy: bool) -> None:
        """Disable sending while a turn runs. You can keep writing."""
        self._busy = busy
        for button in (self.send_button, self.half_button, self.full_button, self.raw_button):
            button.setEnabled(not busy)
        self.stop_button.setEnabled(busy)
        if not busy and self._shown == "busy":
            self._say("")

    def accept(self) -> None:
        """The turn has started: move its text from the prompt to the history, and keep later text."""
        draft, self._in_flight = self._in_flight, None
        if draft is None:
            return
        self.prompt.remember(draft.text)
        if self.prompt.text.startswith(draft.text):
            self.prompt.set_text(self.prompt.text[len(draft.text) :])

    def restore(self, draft: Draft) -> None:
        """The turn has failed and changed nothing: put its text back unless the prompt has other text."""
        self._in_flight = None
        if not self.prompt.text:
            self.prompt.set_text(draft.text)

    # -- the rest

    @property
    def send_key(self) -> str:
        """ "shift+enter", "enter" or "ctrl+enter"."""
        return self.prompt.send_key

    @send_key.setter
    def send_key(self, key: str) -> None:
        self.prompt.send_key = key

    def focus_prompt(self) -> None:
        self.prompt.setFocus(Qt.FocusReason.OtherFocusReason)

    def state(self) -> dict[str, Any]:
        """The values that the session saves."""
        found = {name: box.chosen for name, box in self.boxes.items()}
        found |= {"bang": self.bang.text(), "text": self.prompt.text}
        # A lone surrogate cannot be written to a file. It must not prevent saving the rest.
        return {key: text.encode("utf-8", "replace").decode() for key, text in found.items()}

    def restore_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. Invalid values are ignored."""
        found = {key: value for key, value in state.items() if isinstance(value, str)}
        for name, box in self.boxes.items():
            if name in found:
                box.choose(found[name])
        if "bang" in found:
            self.bang.setText(found["bang"])
        if "text" in found and len(found["text"]) <= MAX_STATE_CHARS:
            self.prompt.set_text(found["text"])

    def edit_list(self, name: str) -> None:
        """Open the editor of a list, or bring it to the front."""
        editor = self._editors.get(name)
        if editor is None:
            editor = self._editors[name] = ChoicesEditor(self.choices, name, self)
            editor.finished.connect(lambda _, name=name: self._editors.pop(name, None))
        editor.show()
        editor.raise_()
        editor.activateWindow()

    def _on_list_changed(self, name: str) -> None:
        self.boxes[name].offer(self.choices.values(name))
        self._tell_lists()

    def _tell_lists(self) -> None:
        """Show the problems in the files of the lists, or clear the notice."""
        troubles = self.choices.troubles()
        if troubles:
            more = f" ({len(troubles) - 1} more)" if len(troubles) > 1 else ""
            self._say(f"{troubles[0]}{more} Choose “{EDIT}” in the list to fix it.", "lists")
        elif self._shown == "lists":
            self._say("")

    def _on_text(self) -> None:
        length = len(self.prompt.text)
        self.count.setText(f"{length:,} character{'' if length == 1 else 's'}" if length else "")
        if length and self._shown == "empty":
            self._say("")

    def _on_files(self, paths: list[Path]) -> None:
        if all(path.is_file() for path in paths):
            self.files_dropped.emit(paths)
        else:
            self._say("You can drop files here, but not folders.")

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and local_files(event.mimeData()):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        if event is not None and (paths := local_files(event.mimeData())):
            event.acceptProposedAction()
            self._on_files(paths)
