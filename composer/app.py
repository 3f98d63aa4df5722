"""The process of the window: starts Qt, handles signals and reports exceptions."""

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
from ssmprov.causes import known
from ssmprov.configuration import home_of
from ssmprov.errors import SsmprovError
from ssmprov.process import heard

LOOK_MS = 200


def run(directory: Path, model: str = "", context: str = "") -> int:
    """Open the window and run it until it is closed. Returns the exit status; raises the configuration's errors."""
    home = home_of()
    home.mkdir(parents=True, exist_ok=True)
    client = Client(agent="composer")
    app = QApplication.instance() or QApplication([sys.argv[0]])
    assert isinstance(app, QApplication), "nothing else creates an application here"
    app.setApplicationName("ssmprov")
    app.setApplicationDisplayName("Composer")
    app.setDesktopFileName("ssmprov-composer")
    window = Window(client, directory, home, model, context)
    sys.excepthook = reporter(window)
    # Python handles a signal only between two bytecode instructions. Without this timer Qt's loop runs none.
    ticks = QTimer()
    ticks.timeout.connect(lambda: None)
    ticks.start(LOOK_MS)
    for number in heard(signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: window.close())
    window.show()
    window.compose.focus_prompt()
    return app.exec()


def reporter(window: Window) -> Callable[[type[BaseException], BaseException, TracebackType | None], None]:
    """An exception hook that shows the exception, so that one raised in a slot does not end the process."""

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(text, file=sys.stderr, end="")
        if isinstance(error, KeyboardInterrupt):
            window.close()
            return
        found = known(error) or SsmprovError(
            f"something went wrong in the window ({kind.__name__}). What was saved is safe, and you can continue. "
            "Please report the details"
        )
        found.remote_traceback = text
        window.troubles.show(found)

    return report
