"""One sampling setting: a slider for common values, a spin box for all values, and a reset button."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PyQt6.QtCore import QLocale, QObject, QSignalBlocker, Qt, pyqtSignal
from PyQt6.QtGui import QFont
from PyQt6.QtWidgets import QDoubleSpinBox, QGridLayout, QLabel, QSlider, QSpinBox, QToolButton, QWidget

from ssmprov.settings import RANGES, WHOLE

LOG_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a setting is shown, and the range of its slider. A `step` of 0 makes the slider logarithmic."""

    title: str
    tip: str
    low: float
    high: float
    step: float

    @property
    def steps(self) -> int:
        return round((self.high - self.low) / self.step) if self.step else LOG_STEPS

    def place(self, value: float) -> int:
        """The slider position for a value, limited to the slider's range."""
        value = min(max(value, self.low), self.high)
        if self.step:
            return round((value - self.low) / self.step)
        return round(LOG_STEPS * math.log(value / self.low) / math.log(self.high / self.low))

    def value(self, place: int) -> float:
        """The value of a slider position, rounded to a short number."""
        if self.step:
            return round(self.low + place * self.step, 4)
        if place == LOG_STEPS:
            return self.high
        exact: float = self.low * (self.high / self.low) ** (place / LOG_STEPS)
        digits = 1 - math.floor(math.log10(exact))
        return max(round(exact, digits), self.low)


SCALES = {
    "temp": Scale(
        title="Temperature",
        tip="0 always picks the most likely token; higher values vary more",
        low=0,
        high=2,
        step=0.05,
    ),
    "top_p": Scale(
        title="Top p",
        tip="Sample from the most likely tokens that together have this probability; 1 is off",
        low=0,
        high=1,
        step=0.01,
    ),
    "top_k": Scale(
        title="Top k", tip="Sample from this many of the most likely tokens; 0 is off", low=0, high=200, step=1
    ),
    "min_p": Scale(
        title="Min p",
        tip="Skip tokens less likely than this share of the most likely one; 0 is off",
        low=0,
        high=1,
        step=0.01,
    ),
    "pen_freq": Scale(
        title="Frequency penalty", tip="Lowers tokens each time they occur; 0 is off", low=-2, high=2, step=0.05
    ),
    "pen_pres": Scale(
        title="Presence penalty", tip="Lowers tokens that have occurred; 0 is off", low=-2, high=2, step=0.05
    ),
    "pen_rep": Scale(
        title="Repetition penalty",
        tip="Divides the logits of tokens that have occurred; 1 is off",
        low=0.5,
        high=2,
        step=0.05,
    ),
    "max": Scale(title="Longest reply", tip="A reply ends after this many characters", low=64, high=1 << 20, step=0),
}


class _Number(QDoubleSpinBox):
    """Shows 0.7 instead of 0.7000."""

    def textFromValue(self, v: float) -> str:
        return f"{v:.4f}".rstrip("0").rstrip(".")


class Knob(QObject):
    """A row of the sampling panel. `value` is exactly what was set, even if the widgets round it."""

    changed = pyqtSignal()  # by the user

    def __init__(self, key: str, parent: QWidget) -> None:
        super().__init__(parent)
        self.key = key
        self.scale = SCALES[key]
        self._base: float | None = None
        self._own: float | None = None
        low, high = RANGES[key]
        self.title = QLabel(self.scale.title)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, self.scale.steps)
        self.slider.setPageStep(max(1, self.scale.steps // 10))
        self.spin: QSpinBox | QDoubleSpinBox
        if key in WHOLE:
            self.spin = QSpinBox()
            self.spin.setRange(int(low), int(high))
            self.spin.setSingleStep(256 if key == "max" else 1)
            self.spin.setGroupSeparatorShown(True)
        else:
            self.spin = _Number()
            self.spin.setDecimals(4)
            self.spin.setRange(low, high)
            self.spin.setSingleStep(self.scale.step)
        self.spin.setLocale(QLocale.c())  # the same format as in files and on the command line
        self.spin.setKeyboardTracking(False)
        self.reset = QToolButton()
        self.reset.setText("↺")
        self.reset.setAutoRaise(True)
        self.title.setBuddy(self.spin)
        for widget, name in (
            (self.slider, f"{self.scale.title}, slider"),
            (self.spin, self.scale.title),
            (self.reset, f"Reset {self.scale.title}"),
        ):
            widget.setAccessibleName(name)
        for shown in (self.title, self.slider, self.spin):
            shown.setToolTip(f"{self.scale.tip} ({key}, {low:g} to {high:g})")
        self.slider.valueChanged.connect(lambda place: self._choose(self.scale.value(place)))
        self.spin.valueChanged.connect(self._choose)
        self.reset.clicked.connect(self._take_back)
        self._show()

    def place_in(self, grid: QGridLayout, row: int) -> None:
        for column, widget in enumerate((self.title, self.slider, self.spin, self.reset)):
            grid.addWidget(widget, row, column)

    @property
    def value(self) -> float | None:
        """The value in effect; None while the set is not known and nothing was chosen."""
        return self._base if self._own is None else self._own

    @property
    def differs(self) -> bool:
        return self._own is not None and self._own != self._base

    def set_base(self, value: float | None) -> None:
        """Set the value of the named set; None if it is not known yet."""
        self._base = value
        self._show()

    def set_own(self, value: float | None) -> None:
        """Set the user's own value; None to use the set's value."""
        self._own = value
        self._show()

    def _choose(self, value: float) -> None:
        self._own = int(value) if self.key in WHOLE else float(value)
        self._show()
        self.changed.emit()

    def _take_back(self) -> None:
        if self.reset.hasFocus():
            self.spin.setFocus()  # the button disappears
        self.set_own(None)
        self.changed.emit()

    def _show(self) -> None:
        value = self.value if self.value is not None else self.scale.low
        with QSignalBlocker(self.slider), QSignalBlocker(self.spin):
            self.slider.setValue(self.scale.place(value))
            if isinstance(self.spin, QSpinBox):
                self.spin.setValue(int(value))
            else:
                self.spin.setValue(value)
        font = QFont()
        font.setBold(self.differs)
        self.title.setFont(font)
        policy = self.reset.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.reset.setSizePolicy(policy)
        self.reset.setVisible(self.differs)
        base = "" if self._base is None else f", {self._base:g}"
        self.reset.setToolTip(f"Reset to the value of the set{base}")
