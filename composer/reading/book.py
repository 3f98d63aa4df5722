"""The transcript as the window shows it: the file as it grows, followed by the text that is streaming in."""

from __future__ import annotations

from pathlib import Path

from PyQt6.QtCore import QFileSystemWatcher, QObject, QTimer, pyqtSignal

from composer.reading.follow import FollowedFile
from composer.reading.growing import Growing, first_difference
from composer.reading.timers import Soon
from ssmprov.transcript import Item
from transcripts.record import TRANSCRIPT

SETTLE_MS = 25
"""How long file events are collected. Editors delete and rename a file faster than this."""

FALLBACK_MS = 1000
"""How often the file is checked without an event, for example on network disks."""

READ_S = 0.25
"""How long reading may block the window at a time."""


class Book(QObject):
    """The transcript of a directory. Offsets count characters of `shown`."""

    changed = pyqtSignal(int)
    """The index of the first item that may differ. Earlier items are unchanged."""

    reset = pyqtSignal()
    """Everything may differ."""

    trouble = pyqtSignal(str)
    """What is wrong with the file; '' when it is fine again."""

    def __init__(self, directory: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.directory = directory
        self._path = directory / TRANSCRIPT
        self._file = FollowedFile(self._path)
        self._filed = Growing()
        self._stream: Growing | None = None
        self._at = 0
        self._written: list[str] = []
        self._said = ""
        self._watcher = QFileSystemWatcher(self)
        self._gather = Soon(self, SETTLE_MS, self.refresh)
        self._more = Soon(self, 0, self.refresh)
        self._watcher.fileChanged.connect(self._gather.ask)
        self._watcher.directoryChanged.connect(self._gather.ask)
        self._fallback = QTimer(self)
        self._fallback.timeout.connect(self._look)
        self._fallback.start(FALLBACK_MS)
        self.refresh()

    @property
    def items(self) -> list[Item]:
        """The shown items: the file up to the stream's start, then the stream. Do not change the list."""
        return self._now.items

    @property
    def text(self) -> str:
        """The text of the file, without the stream."""
        return self._file.text

    @property
    def shown(self) -> str:
        """The text of the items."""
        if self._stream is None:
            return self._file.text
        return self._file.text[: self._at] + "".join(self._written)

    @property
    def streaming(self) -> bool:
        return self._stream is not None

    @property
    def trouble_now(self) -> str:
        """The last value of the signal `trouble`."""
        return self._said

    def offset_of(self, index: int) -> int:
        """The offset in `shown` at which an item begins. For the index after the last one, the length."""
        return self._now.offset(index)

    def index_at(self, offset: int) -> int:
        """The item that contains an offset of `shown`."""
        return self._now.index_at(offset)

    def line_of(self, index: int) -> int:
        """The line at which an item begins, counted from 1."""
        return self.items[index].line

    def refresh(self) -> None:
        """Read what was added to the file."""
        self._take(self._file.poll(READ_S))
        self._watch()
        if self._file.behind:
            self._more.ask()

    def begin(self, text: str, at: int | None = None) -> None:
        """Show `text` after character `at` of the file, or at its end, in place of what follows there."""
        self.refresh()
        self._at = self._filed.length if at is None else min(max(at, 0), self._filed.length)
        self._written = [text]
        self._restream()

    def write(self, piece: str) -> None:
        """Add a piece to the stream."""
        if self._stream is not None and piece:
            self._written.append(piece)
            self.changed.emit(self._stream.append(piece))

    def end(self) -> None:
        """End the stream. From now on the file is shown again."""
        stream = self._stream
        if stream is None:
            return
        self._take(self._file.poll())
        self._stream, self._written = None, []
        items = self._filed.items
        first = first_difference(stream.items, items)
        if items:
            self.changed.emit(min(first, len(items) - 1))  # redraw the last item without the cursor
        else:
            self.reset.emit()
        self._watch()

    @property
    def _now(self) -> Growing:
        return self._filed if self._stream is None else self._stream

    def _restream(self) -> None:
        before = self._now.items
        self._stream = self._filed.branch(self._at)
        self._stream.append("".join(self._written))
        items = self._stream.items
        self.changed.emit(max(0, min(first_difference(before, items), len(items) - 1)))

    def _look(self) -> None:
        """Check the file without an event. If its last character stays incomplete, take it as it is."""
        changed = self._file.poll(READ_S)
        if changed is None:
            changed = self._file.settle()
        self._take(changed)
        self._watch()
        if self._file.behind:
            self._more.ask()

    def _take(self, changed: int | None) -> None:
        """Take over the file's text from this character on."""
        if changed is not None:
            kept = self._filed.length
            cut = self._filed.cut(changed) if changed < kept else None
            first = self._filed.append(self._file.since(changed))
            first = first if cut is None else min(first, cut)
            if self._stream is None:
                if cut is not None and first == 0:
                    self.reset.emit()
                else:
                    self.changed.emit(first)
            elif changed < self._at:
                self._at = min(self._at, self._filed.length)
                self._restream()
        if self._file.trouble != self._said:
            self._said = self._file.trouble
            self.trouble.emit(self._said)

    def _watch(self) -> None:
        """Watch the file again: the watcher forgets replaced files and cannot watch missing ones."""
        watched = {*self._watcher.files(), *self._watcher.directories()}
        for path in (self._path, self.directory):
            if str(path) not in watched and path.exists():
                self._watcher.addPath(str(path))
