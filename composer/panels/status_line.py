"""The status bar: a turn's place in the queue, its prefill and decode progress, and its speed."""

from __future__ import annotations

from PyQt6.QtCore import QEvent, Qt
from PyQt6.QtGui import QPalette
from PyQt6.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QSizePolicy, QWidget

ENDS = {
    "fence": "done",
    "header": "done",
    "end": "done",
    "limit": "done, limit reached",
    "forced": "read",
    "read": "read",
    "cancelled": "stopped",
}
_WIDEST = ("9,999,999 tokens", "9,999.9 tokens/s")


class StatusLine(QWidget):
    """Each part has a fixed place and width, so that nothing moves while the numbers change."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Status")
        self.state = QLabel()
        self.state.setTextFormat(Qt.TextFormat.PlainText)
        self.state.setAccessibleName("What happens now")
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("Prefill progress")
        self.tokens = QLabel()
        self.tokens.setAccessibleName("Tokens written")
        self.rate = QLabel()
        self.rate.setAccessibleName("Tokens per second")
        self.worker = QLabel()
        self.worker.setAccessibleName("Worker")
        self.about = QLabel()
        self.about.setTextFormat(Qt.TextFormat.PlainText)
        self.about.setAccessibleName("Context")
        for label in (self.tokens, self.rate):
            label.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        for label in (self.worker, self.about):
            label.setForegroundRole(QPalette.ColorRole.PlaceholderText)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(self.fontMetrics().height())
        row.addWidget(self.state, 1)
        for widget in (self.bar, self.tokens, self.rate, self.worker, self.about):
            row.addWidget(widget)
        self._measure()
        self.idle("")

    def idle(self, text: str) -> None:
        """No turn is running."""
        self._show(text)

    def queued(self, place: int) -> None:
        """The turn is waiting; `place` requests are ahead of it."""
        self._show(f"Waiting in the queue, place {place}" if place > 0 else "Waiting for a worker")

    def reading(self, done: int, total: int) -> None:
        """The prefill has read `done` of `total` tokens."""
        self._show(f"Reading {done:,} of {total:,} tokens" if total else "Reading")
        self.bar.setRange(0, max(0, total))  # without a total the bar shows activity only
        self.bar.setValue(min(done, total))
        self.bar.show()

    def writing(self, tokens: int, tokens_per_s: float, worker: str) -> None:
        self._show("Writing", tokens, tokens_per_s, worker)

    def ended(self, stop: str, tokens: int, tokens_per_s: float, worker: str) -> None:
        """How the last turn ended. `stop` is from TurnResult or an error's code."""
        self._show(ENDS.get(stop, stop.replace("_", " ")).capitalize(), tokens, tokens_per_s, worker)

    def context(self, name: str, tokens: int, differs: bool) -> None:
        """Show the current context, and whether the transcript differs from what it has read."""
        self.about.setText(f"{name} · {tokens:,} tokens{' · differs from the transcript' if differs else ''}")
        self.about.setToolTip(
            "The transcript differs from what the context has read. Go back to where they agree, or read it anew."
            if differs
            else "The current context and the number of tokens that it has read"
        )

    def _show(self, state: str, tokens: int | None = None, rate: float | None = None, worker: str = "") -> None:
        self.bar.hide()
        self.state.setText(state)
        self.tokens.setText("" if tokens is None else f"{tokens:,} token{'' if tokens == 1 else 's'}")
        self.rate.setText("" if not rate else f"{rate:,.1f} tokens/s")
        self.worker.setText(worker)

    def _measure(self) -> None:
        metrics = self.fontMetrics()
        for label, widest in zip((self.tokens, self.rate), _WIDEST, strict=True):
            label.setMinimumWidth(metrics.horizontalAdvance(widest))
        self.worker.setMinimumWidth(metrics.horizontalAdvance("rwkv7-mini/0"))
        self.bar.setFixedWidth(metrics.horizontalAdvance("0" * 14))
        self.bar.setMaximumHeight(metrics.height() // 2)

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.FontChange and hasattr(self, "about"):
            self._measure()
