"""The broker that the window starts: `ssmprov up` as a child process. Nothing here blocks."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from pathlib import Path

from PyQt6.QtCore import QFileSystemWatcher, QObject, QProcess, QTimer, pyqtSignal

from ssmprov.causes import explained

KEPT_LINES = 40
TOLD_LINES = 6
PATIENCE_MS = 180_000
"""How long the start may take. Torch and a large model need time."""


def program() -> str:
    """The command `ssmprov` of this installation."""
    beside = Path(sys.executable).with_name("ssmprov")
    return str(beside) if beside.exists() else (shutil.which("ssmprov") or "ssmprov")


class Server(QObject):
    """Runs `ssmprov up` in the working directory `home`. Without an `ssmprov.toml` it serves the embedded model.

    `failed` says why it did not start, or why it stopped unexpectedly later. `ended` follows each start, with the
    exit status. This class only ends the process that it started.
    """

    ready = pyqtSignal()
    failed = pyqtSignal(str)
    ended = pyqtSignal(int)

    def __init__(self, home: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.home = home
        self._process: QProcess | None = None
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._rest = b""
        self._place: Path | None = None
        self._serving = False
        self._stopping = False
        self._then: list[Callable[[], None]] = []
        self._watcher = QFileSystemWatcher(self)
        self._watcher.directoryChanged.connect(self._look)
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(PATIENCE_MS)
        self._patience.timeout.connect(self._give_up)

    @property
    def running(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int:
        """The process id, 0 if it is not running."""
        return self._process.processId() if self._process is not None else 0

    def start(self) -> None:
        """Start it unless it is running. `ready` or `failed` reports the outcome."""
        if self._process is not None:
            return
        self._lines.clear()
        self._rest = b""
        self._serving = self._stopping = False
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self._place = Path(tempfile.mkdtemp(prefix="ssmprov-composer-"))
        except OSError as error:
            self.failed.emit(explained(error, "The broker was not started").message)
            return
        self._watcher.addPath(str(self._place))
        process = QProcess(self)
        process.setWorkingDirectory(str(self.home))
        process.setStandardOutputFile(QProcess.nullDevice())
        process.setStandardInputFile(QProcess.nullDevice())
        process.readyReadStandardError.connect(self._read)
        process.errorOccurred.connect(self._on_error)
        process.finished.connect(self._on_finished)
        self._process = process
        self._patience.start()
        process.start(program(), ["--home", str(self.home), "up", "--ready-file", str(self._ready_file)])

    def stop(self, then: Callable[[], None] = lambda: None) -> None:
        """Ask it to end. It first finishes what it has accepted. `then` is called when it is gone."""
        if self._process is None:
            then()
            return
        self._then.append(then)
        if not self._stopping:
            self._stopping = True
            self._process.terminate()

    @property
    def _ready_file(self) -> Path:
        assert self._place is not None
        return self._place / "ready.json"

    def _look(self) -> None:
        if self._process is not None and not self._serving and not self._stopping and self._ready_file.exists():
            self._serving = True
            self._patience.stop()
            self.ready.emit()

    def _give_up(self) -> None:
        self._lines.append(f"it did not start within {PATIENCE_MS // 1000} seconds")
        if self._process is not None:
            self._process.terminate()

    def _read(self) -> None:
        if self._process is None:
            return
        *lines, self._rest = (self._rest + self._process.readAllStandardError().data()).split(b"\n")
        self._lines.extend(line.decode("utf-8", "replace") for line in lines)
        self._rest = self._rest[-4096:]

    def _on_error(self, error: QProcess.ProcessError) -> None:
        """Handle a program that could not be started: Qt emits no `finished` for it."""
        if error == QProcess.ProcessError.FailedToStart and self._process is not None:
            self._lines.append(self._process.errorString())
            self._over(127)

    def _on_finished(self, status: int, how: QProcess.ExitStatus) -> None:
        self._read()
        if self._rest:
            self._lines.append(self._rest.decode("utf-8", "replace"))
        self._over(status if how == QProcess.ExitStatus.NormalExit else -status)

    def _over(self, status: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.deleteLater()
        self._patience.stop()
        if self._place is not None:
            self._watcher.removePath(str(self._place))
            with contextlib.suppress(OSError):
                shutil.rmtree(self._place)
            self._place = None
        was_serving, wished, self._serving, self._stopping = self._serving, self._stopping, False, False
        if not wished:
            what = "stopped unexpectedly" if was_serving else "did not start"
            self.failed.emit("\n".join([f"The broker {what}.", *list(self._lines)[-TOLD_LINES:]]))
        self.ended.emit(status)
        then, self._then = self._then, []
        for call in then:
            call()
