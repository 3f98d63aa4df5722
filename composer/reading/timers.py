"""A timer that collects several requests and fires once."""

from __future__ import annotations

from collections.abc import Callable

from PyQt6.QtCore import QObject, QTimer


class Soon(QTimer):
    """Calls `action` once, `wait_ms` after the first `ask`. Further calls of `ask` before that do nothing."""

    def __init__(self, parent: QObject, wait_ms: int, action: Callable[[], None]) -> None:
        super().__init__(parent)
        self.setSingleShot(True)
        self.setInterval(wait_ms)
        self.timeout.connect(action)

    def ask(self) -> None:
        if not self.isActive():
            self.start()
