"""The directory's own context, as its dot file names it now: the shell tools may change it at any time."""

from __future__ import annotations

from PyQt6.QtCore import QFileSystemWatcher, QObject, QTimer, pyqtSignal

from composer import advice
from ssmprov.errors import BadRequest
from transcripts.own import Own, own_of
from transcripts.record import Record

FALLBACK_MS = 1000
"""How often the file is read without an event, for example on network disks."""


class OwnContext(QObject):
    """`now` is None if the directory has no context yet."""

    changed = pyqtSignal(object)  # an Own or None
    trouble = pyqtSignal(str)
    """What is wrong with the file; '' when it is fine again."""

    def __init__(self, record: Record, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._record = record
        self.now: Own | None = None
        self.trouble_now = ""
        self._watcher = QFileSystemWatcher([str(record.directory)], self)
        self._watcher.directoryChanged.connect(self.look)
        self._fallback = QTimer(self)
        self._fallback.timeout.connect(self.look)
        self._fallback.start(FALLBACK_MS)
        self.look()

    def look(self) -> None:
        """Read the file now."""
        now, trouble = self.now, ""
        try:
            now = own_of(self._record)
        except BadRequest as error:
            trouble = advice.sentence(error)
        except OSError as error:
            trouble = f"{error.filename} cannot be read: {error.strerror}."
        if trouble != self.trouble_now:
            self.trouble_now = trouble
            self.trouble.emit(trouble)
        if now != self.now:
            self.now = now
            self.changed.emit(now)
