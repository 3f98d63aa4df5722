"""The process of the window."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from PyQt6.QtCore import QTimer
from PyQt6.QtWidgets import QApplication

from clients import Client
from composer.window import Window
from ssmprov.configuration import home_of
from ssmprov.errors import SsmprovError

LOOK_MS = 200


def run(directory: Path, model: str = "", context: str = "") -> int:
    """Open the window and serve it until it is closed; the exit status. Raises what a configuration may raise."""
    home = home_of()
    home.mkdir(parents=True, exist_ok=True)
    client = Client(agent="composer")
    app = QApplication.instance() or QApplication([sys.argv[0]])
    assert isinstance(app, QApplication), "there is no other"
    app.setApplicationName("ssmprov")
    app.setApplicationDisplayName("Composer")
    app.setDesktopFileName("ssmprov-composer")
    window = Window(client, directory, home, model, context)
    sys.excepthook = reporter(window)
    # Python sees a signal only between two of its own instructions, which Qt's loop has none of without this.
    ticks = QTimer()
    ticks.timeout.connect(lambda: None)
    ticks.start(LOOK_MS)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: window.close())
    window.show()
    window.compose.focus_prompt()
    return app.exec()


def reporter(window: Window) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """What happens to an exception in a slot, which would end the process: it is shown, and the window goes on."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(text, file=sys.stderr, end="")
        if isinstance(error, KeyboardInterrupt):
            window.close()
            return
        found = (
            error
            if isinstance(error, SsmprovError)
            else SsmprovError(
                f"something in the window went wrong ({kind.__name__}): what is written down is safe; go on, and "
                "please report the details"
            )
        )
        found.remote_traceback = text
        window.troubles.show(found)

    return report
