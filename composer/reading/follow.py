"""Follows a text file that other programs write. Reads only the added part if the file just grew."""

from __future__ import annotations

import codecs
import os
import re
import stat
import time
from pathlib import Path

from ssmprov.causes import cause_of

SLICE = 1 << 20
LIMIT = 256 << 20
"""The rest of a file larger than this is not read."""

WHOLE = 16 << 20
"""A changed file up to this size is compared with the old text. A larger one is read again in slices."""

KNOWN = 1 << 16
"""How many of the last bytes are remembered. If they changed, the file did not just grow."""

FRESH_NS = 50_000_000
"""A file changed this recently may change again without a new modification time."""

_FOREIGN = re.compile("[\udc80-\udcff]")


class FollowedFile:
    """The text of a UTF-8 file. Other bytes become surrogates (`surrogateescape`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trouble = ""
        self.behind = False  # there is more to read
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
        """The text from this character on."""
        taken: list[str] = []
        begin = self.length
        for piece in reversed(self._pieces):
            if begin <= at:
                break
            begin -= len(piece)
            taken.append(piece)
        return "".join(reversed(taken))[max(0, at - begin) :]

    def poll(self, budget_s: float | None = None) -> int | None:
        """Read for about this long. Returns the first character that differs, or None if nothing changed."""
        try:
            found = os.stat(self._path)
            if self._unchanged(found):
                return None
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block
        except (FileNotFoundError, NotADirectoryError):
            return self._gone()
        except OSError as error:
            return self._unreadable(cause_of(error).says)
        try:
            return self._look(descriptor, budget_s)
        except OSError as error:
            return self._unreadable(cause_of(error).says)
        finally:
            os.close(descriptor)

    def settle(self) -> int | None:
        """Decode an incomplete last character as it is, because nothing followed. Returns the same as `poll`."""
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
            what = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            return self._unreadable(f"it is {what}")
        if found.st_size > LIMIT:
            self.behind = False
            self.trouble = (
                f"The transcript is larger than {LIMIT >> 20} MiB, so the rest of it is not shown. Rename {self._path} "
                "and keep writing: the contexts still have their text."
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
        """Read the whole file and compare it with the old text."""
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
            f"Line {self._foreign_line} of the transcript contains bytes that are not valid UTF-8. They are shown as "
            "\ufffd and stay in the file. You can correct the line in an editor."
        )

    def _gone(self) -> int | None:
        if self._there is None and not self._missing:
            return None  # there is no transcript yet
        dropped = self.length > 0
        self._begin()
        self._there, self._missing, self.behind = None, True, False
        self.trouble = (
            f"The transcript {self._path.name} was deleted. The contexts still have their text. Put the file back, or "
            "keep writing to begin a new transcript."
        )
        return 0 if dropped else None

    def _unreadable(self, why: str) -> int | None:
        self._sure = False
        self.behind = False
        self.trouble = (
            f"The transcript cannot be read: {why}. Check {self._path}. It appears here as soon as it can be read."
        )
        return None


def shared_prefix(one: str, other: str) -> int:
    """The length of the common beginning of two texts."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
