"""The transcript as the window shows it: the file, followed while others write it, and behind it what streams in."""

from __future__ import annotations

from pathlib import Path

from PyQt6.QtCore import QFileSystemWatcher, QObject, QTimer, pyqtSignal

from composer.reading.follow import FollowedFile
from composer.reading.growing import Growing, first_difference
from composer.reading.timers import Soon
from ssmprov.transcript import Item
from transcripts.record import TRANSCRIPT

SETTLE_MS = 25
"""How long events of the file are gathered: editors delete and rename within less."""

FALLBACK_MS = 1000
"""How often the file is looked at when no event tells of it, as on network disks."""

READ_S = 0.25
"""How long reading may hold up the window at a time."""


class Book(QObject):
    """The transcript of a directory. Offsets count characters of `shown`."""

    changed = pyqtSignal(int)
    """The index of the first item that may differ; all before it stand."""

    reset = pyqtSignal()
    """Everything may differ."""

    trouble = pyqtSignal(str)
    """What is wrong with the file, '' when it is well again."""

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
        """What is shown: the file up to the stream's place, then the stream. The list is not to be changed."""
        return self._now.items

    @property
    def text(self) -> str:
        """The file's text alone."""
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
        """What the signal `trouble` said last."""
        return self._said

    def offset_of(self, index: int) -> int:
        """The character in `shown` at which an item begins; of the index after the last one, the length."""
        return self._now.offset(index)

    def index_at(self, offset: int) -> int:
        """The item that holds a character of `shown`."""
        return self._now.index_at(offset)

    def line_of(self, index: int) -> int:
        """The line at which an item begins, from 1."""
        return self.items[index].line

    def refresh(self) -> None:
        """Read now what was added to the file."""
        self._take(self._file.poll(READ_S))
        self._watch()
        if self._file.behind:
            self._more.ask()

    def begin(self, text: str, at: int | None = None) -> None:
        """Show a text after character `at` of the file (its end, where there is none), in place of what follows."""
        self.refresh()
        self._at = self._filed.length if at is None else min(max(at, 0), self._filed.length)
        self._written = [text]
        self._restream()

    def write(self, piece: str) -> None:
        """More of the stream."""
        if self._stream is not None and piece:
            self._written.append(piece)
            self.changed.emit(self._stream.append(piece))

    def end(self) -> None:
        """The stream is over: the file is the truth again."""
        stream = self._stream
        if stream is None:
            return
        self._take(self._file.poll())
        self._stream, self._written = None, []
        items = self._filed.items
        first = first_difference(stream.items, items)
        if items:
            self.changed.emit(min(first, len(items) - 1))  # the last item shows that nothing streams any more
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
        """Without an event: what the events may have missed, and a last character that stays cut in two."""
        changed = self._file.poll(READ_S)
        if changed is None:
            changed = self._file.settle()
        self._take(changed)
        self._watch()
        if self._file.behind:
            self._more.ask()

    def _take(self, changed: int | None) -> None:
        """Take over what the file holds from a character on."""
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
        """A watcher forgets a file that was replaced, and cannot watch one that is not there yet."""
        watched = {*self._watcher.files(), *self._watcher.directories()}
        for path in (self._path, self.directory):
            if str(path) not in watched and path.exists():
                self._watcher.addPath(str(path))
