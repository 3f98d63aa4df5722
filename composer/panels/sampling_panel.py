"""The sampling settings: a named set, values that override it, and the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PyQt6.QtCore import QSignalBlocker, Qt, pyqtSignal
from PyQt6.QtGui import QKeyEvent, QPalette, QValidator
from PyQt6.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QPushButton, QVBoxLayout, QWidget

from composer.panels.knob import Knob
from ssmprov.errors import BadRequest
from ssmprov.settings import KEYS, check_value, set_name

MAX_SEED = 2**63 - 1


class _SeedValidator(QValidator):
    def validate(self, text: str | None, pos: int) -> tuple[QValidator.State, str, int]:
        text = text or ""
        good = not text or (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= MAX_SEED)
        return (QValidator.State.Acceptable if good else QValidator.State.Invalid), text, pos


class SamplingPanel(QWidget):
    """Does not call the broker itself: the window provides the sets and their values, and saves a set."""

    set_chosen = pyqtSignal(str)  # asks for its values; '' is the model's default
    save_wanted = pyqtSignal(str, dict)  # the name and all values
    changed = pyqtSignal()  # any setting of the next turn

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Sampling")
        self._names: list[str] = []
        self._default = ""
        self._chosen = ""

        self.sets = QComboBox()
        self.sets.setAccessibleName("Sampling set")
        self.sets.setToolTip("The named sampling settings for replies")
        self.sets.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.sets.setMinimumContentsLength(12)
        self.sets.activated.connect(self._on_set)
        self.save_as = QPushButton("Save as…")
        self.save_as.setAccessibleName("Save these values as a set")
        self.save_as.clicked.connect(self._open_name)
        self.knobs = {key: Knob(key, self) for key in KEYS}
        self.seed_edit = QLineEdit()
        self.seed_edit.setPlaceholderText("random")
        self.seed_edit.setAccessibleName("Seed")
        self.seed_edit.setToolTip(
            "The same seed, text and settings give the same reply. Leave it blank for a new seed each time."
        )
        self.seed_edit.setValidator(_SeedValidator(self))
        self.seed_edit.textChanged.connect(lambda _: self.changed.emit())
        self.name_row = QWidget()
        self.name_edit = _NameEdit()
        self.name_edit.setPlaceholderText("Name of the set")
        self.name_edit.setAccessibleName("Name of the new set")
        self.save = QPushButton("Save")
        self.save.setAccessibleName("Save the set")
        self.cancel = QPushButton("Cancel")
        self.cancel.setAccessibleName("Do not save the set")
        self.word = QLabel()
        self.word.setWordWrap(True)
        self.word.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        self.word.hide()
        self.save.clicked.connect(self._save)
        self.cancel.clicked.connect(self.close_name)
        self.name_edit.returnPressed.connect(self._save)
        self.name_edit.escaped.connect(self.close_name)
        self.name_edit.textChanged.connect(lambda _: self._say(""))
        for knob in self.knobs.values():
            knob.changed.connect(self.changed)
        self._arrange()
        self._fill()

    def _arrange(self) -> None:
        em = self.fontMetrics().height()
        top = QHBoxLayout()
        top.addWidget(self.sets, 1)
        top.addWidget(self.save_as)
        name = QHBoxLayout(self.name_row)
        name.setContentsMargins(0, 0, 0, 0)
        name.addWidget(self.name_edit, 1)
        name.addWidget(self.save)
        name.addWidget(self.cancel)
        self.name_row.hide()
        grid = QGridLayout()
        grid.setHorizontalSpacing(em * 2 // 3)
        grid.setVerticalSpacing(em // 3)
        grid.setColumnStretch(1, 1)
        for row, knob in enumerate(self.knobs.values()):
            knob.place_in(grid, row)
        seed = QLabel("Seed")
        seed.setBuddy(self.seed_edit)
        grid.addWidget(seed, len(self.knobs), 0)
        grid.addWidget(self.seed_edit, len(self.knobs), 1, 1, 2)
        column = QVBoxLayout(self)
        column.setSpacing(em * 2 // 3)
        column.addLayout(top)
        column.addWidget(self.name_row)
        column.addWidget(self.word)
        column.addLayout(grid)
        column.addStretch(1)
        order: list[QWidget] = [self.sets, self.save_as, self.name_edit, self.save, self.cancel]
        for knob in self.knobs.values():
            order += [knob.slider, knob.spin, knob.reset]
        order.append(self.seed_edit)
        for i in range(len(order) - 1):
            QWidget.setTabOrder(order[i], order[i + 1])

    # -- what the window provides

    def set_sets(self, names: Sequence[str], default: str) -> None:
        """Show these sets and the model's default. If the chosen set is gone, the default replaces it."""
        self._names, self._default = sorted(names), default
        gone = bool(self._chosen) and self._chosen not in self._names
        if gone:
            self._chosen = ""
        self._fill()
        if gone:
            self.set_chosen.emit("")
            self.changed.emit()

    def set_values(self, values: Mapping[str, float]) -> None:
        """Show the values of the chosen set. The user's own values stay."""
        for key, knob in self.knobs.items():
            knob.set_base(values.get(key))

    def choose_set(self, name: str) -> None:
        """Choose a set, for example one just saved, and drop the user's own values."""
        self._chosen = name
        self._fill()
        self._drop_own()

    def override(self, key: str, value: float) -> None:
        """Override one value of the set, as a slash command does."""
        self.knobs[key].set_own(value)
        self.changed.emit()

    # -- what the window reads

    @property
    def chosen_set(self) -> str:
        """The name of the set, '' for the model's default."""
        return self._chosen

    def overrides(self) -> dict[str, float]:
        """Only the values that differ from the set."""
        return {key: knob.value for key, knob in self.knobs.items() if knob.differs and knob.value is not None}

    def values(self) -> dict[str, float]:
        """All known values."""
        return {key: knob.value for key, knob in self.knobs.items() if knob.value is not None}

    @property
    def seed(self) -> int | None:
        text = self.seed_edit.text()
        return int(text) if text and self.seed_edit.hasAcceptableInput() else None

    def state(self) -> dict[str, Any]:
        """The values that the session saves."""
        return {"set": self._chosen, "values": self.overrides(), "seed": self.seed_edit.text()}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Invalid values are ignored. Emits nothing."""
        with QSignalBlocker(self):
            name, values, seed = state.get("set"), state.get("values"), state.get("seed")
            if isinstance(name, str):
                self._chosen = name
                self._fill()
            for key, value in values.items() if isinstance(values, dict) else ():
                if key in self.knobs:
                    try:
                        self.knobs[key].set_own(check_value(key, value))
                    except BadRequest:
                        continue
            if isinstance(seed, str) and _SeedValidator().validate(seed, 0)[0] == QValidator.State.Acceptable:
                self.seed_edit.setText(seed)

    # -- the rest

    def _fill(self) -> None:
        with QSignalBlocker(self.sets):
            self.sets.clear()
            self.sets.addItem(f"model's default ({self._default})" if self._default else "model's default", "")
            shown = self._names if not self._chosen or self._chosen in self._names else [*self._names, self._chosen]
            for name in shown:
                self.sets.addItem(name, name)
            self.sets.setCurrentIndex(max(0, self.sets.findData(self._chosen)))

    def _on_set(self, index: int) -> None:
        name = str(self.sets.itemData(index) or "")
        if name == self._chosen:
            return
        self._chosen = name
        self._drop_own()
        self.set_chosen.emit(name)
        self.changed.emit()

    def _drop_own(self) -> None:
        for knob in self.knobs.values():
            knob.set_own(None)

    def _open_name(self) -> None:
        self.name_row.show()
        self.name_edit.setText(self._chosen)
        self.name_edit.selectAll()
        self.name_edit.setFocus()

    def close_name(self) -> None:
        """Close the field for a set's name."""
        self.save_as.setFocus()
        self.name_row.hide()
        self._say("")

    def _save(self) -> None:
        text = self.name_edit.text().strip()
        try:
            name = set_name(text) if text else ""
        except BadRequest as error:
            self._say(f"{error.message}.")
            return
        if not name:
            self._say("Enter a name for the set first.")
            return
        self.close_name()
        self.save_wanted.emit(name, self.values())

    def _say(self, text: str) -> None:
        self.word.setText(text)
        self.word.setVisible(bool(text))


class _NameEdit(QLineEdit):
    """A line edit that reports Esc."""

    escaped = pyqtSignal()

    def keyPressEvent(self, a0: QKeyEvent | None) -> None:
        if a0 is not None and a0.key() == Qt.Key.Key_Escape:
            self.escaped.emit()
        else:
            super().keyPressEvent(a0)
