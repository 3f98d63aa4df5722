"""A file of text that others write: what it holds now, by reading only what was added where nothing else happened."""

from __future__ import annotations

import codecs
import os
import re
import stat
import time
from pathlib import Path

SLICE = 1 << 20
LIMIT = 256 << 20
"""A file larger than this is not read any further."""

WHOLE = 16 << 20
"""Up to this size a changed file is compared with what was read before; a larger one is read again in slices."""

KNOWN = 1 << 16
"""The last bytes that were read; where they have changed, the file was not just appended to."""

FRESH_NS = 50_000_000
"""A file this young may change again without its time of change showing it."""

_FOREIGN = re.compile("[\udc80-\udcff]")


class FollowedFile:
    """The text of a file, UTF-8; bytes that are not UTF-8 come as surrogates (`surrogateescape`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trouble = ""
        self.behind = False  # more is there than was read
        self._there: tuple[int, int] | None = None  # device and inode
        self._missing = False
        self._changed_ns = -1
        self._sure = False
        self._begin()

    def _begin(self) -> None:
        self._pieces: list[str] = []
        self.length = 0
        self._offset = 0
        self._last = b""
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._flushed = False
        self._lines = 1
        self._foreign_line = 0

    @property
    def text(self) -> str:
        if len(self._pieces) != 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0]

    def since(self, at: int) -> str:
        """The text from a character on."""
        taken: list[str] = []
        begin = self.length
        for piece in reversed(self._pieces):
            if begin <= at:
                break
            begin -= len(piece)
            taken.append(piece)
        return "".join(reversed(taken))[max(0, at - begin) :]

    def poll(self, budget_s: float | None = None) -> int | None:
        """Look at the file, and read for about that long; from which character on the text differs, None: nowhere."""
        try:
            found = os.stat(self._path)
            if self._unchanged(found):
                return None
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block
        except (FileNotFoundError, NotADirectoryError):
            return self._gone()
        except OSError as error:
            return self._unreadable(error.strerror or str(error))
        try:
            return self._look(descriptor, budget_s)
        except OSError as error:
            return self._unreadable(error.strerror or str(error))
        finally:
            os.close(descriptor)

    def settle(self) -> int | None:
        """Take an unfinished last character as it is, since nothing more came; as `poll` otherwise."""
        at = self.length
        if not self._decoder.getstate()[0] or self.behind:
            return None
        self._take("", final=self._decoder.decode(b"", True))
        self._flushed = True
        self.trouble = self._sound()
        return at

    def _unchanged(self, found: os.stat_result) -> bool:
        same = self._there == (found.st_dev, found.st_ino) and found.st_size == self._offset
        return same and self._sure and found.st_mtime_ns == self._changed_ns

    def _look(self, descriptor: int, budget_s: float | None) -> int | None:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            what = "a directory" if stat.S_ISDIR(found.st_mode) else "no plain file"
            return self._unreadable(f"it is {what}")
        if found.st_size > LIMIT:
            self.behind = False
            self.trouble = (
                f"The transcript is larger than {LIMIT >> 20} MiB and is not read any further. Move {self._path} to "
                "another name and write on: the contexts still hold their text."
            )
            return None
        there = (found.st_dev, found.st_ino)
        grown = there == self._there and found.st_size >= self._offset and not self._flushed
        grown = grown and os.pread(descriptor, len(self._last), self._offset - len(self._last)) == self._last
        begun, self._there, self._changed_ns = self._there is not None, there, found.st_mtime_ns
        self._sure = time.time_ns() - found.st_mtime_ns > FRESH_NS
        self._missing = False
        if grown and found.st_size > self._offset:
            changed: int | None = self._read_on(descriptor, budget_s)
        elif begun and found.st_size <= WHOLE:
            changed = self._read_again(descriptor)
        else:
            dropped = self.length > 0
            self._begin()
            changed = self._read_on(descriptor, budget_s)
            changed = 0 if dropped else changed
        self.trouble = self._sound()
        return changed

    def _read_on(self, descriptor: int, budget_s: float | None) -> int | None:
        """Read what was added."""
        at = self.length
        deadline = None if budget_s is None else time.monotonic() + budget_s
        self.behind = False
        while data := os.pread(descriptor, SLICE, self._offset):
            self._take(self._decoder.decode(data), data)
            if deadline is not None and time.monotonic() > deadline:
                self.behind = True
                break
        return at if self.length > at else None

    def _read_again(self, descriptor: int) -> int | None:
        """Read all, and compare it with what there was."""
        before = self.text
        self._begin()
        self._read_on(descriptor, None)
        now = self.text
        return None if now == before else shared_prefix(before, now)

    def _take(self, text: str, data: bytes = b"", *, final: str = "") -> None:
        text += final
        if not self._foreign_line and (match := _FOREIGN.search(text)):
            self._foreign_line = self._lines + text.count("\n", 0, match.start())
        self._lines += text.count("\n")
        if text:
            self._pieces.append(text)
        self.length += len(text)
        self._offset += len(data)
        self._last = (self._last + data)[-KNOWN:]

    def _sound(self) -> str:
        if not self._foreign_line:
            return ""
        return (
            f"Line {self._foreign_line} of the transcript holds bytes that are no UTF-8. They are shown as \ufffd and "
            "left in the file as they are; correct that line in an editor if they should not be there."
        )

    def _gone(self) -> int | None:
        if self._there is None and not self._missing:
            return None  # a new transcript is to come
        dropped = self.length > 0
        self._begin()
        self._there, self._missing, self.behind = None, True, False
        self.trouble = (
            f"The transcript {self._path.name} was deleted. The contexts still hold their text: put the file back, or "
            "write on, and a new transcript begins."
        )
        return 0 if dropped else None

    def _unreadable(self, why: str) -> int | None:
        self._sure = False
        self.behind = False
        self.trouble = (
            f"The transcript cannot be read: {why}. See to {self._path}; it appears here as soon as it can be read."
        )
        return None


def shared_prefix(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
