"""A disk that remembers: after every step of a store's writing, all that a stop at that moment could leave behind.

A killed process leaves every write that it made. A power cut leaves what was flushed, and of the rest anything: a
file's unflushed bytes lost, cut short or zero, a directory's unflushed names as they were, the log's unflushed end cut
anywhere.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.checkpoints import Store
from workers.checkpoints.files import Files

Image = dict[str, bytes | None]
"""A directory's files by their paths in it; None is a directory."""

WAL = "catalogue.sqlite-wal"
FRAME = 4096 + 24


@dataclass(frozen=True)
class Point:
    """What is there, what of it is durable, and which part of the log is."""

    step: str
    names: dict[str, int]  # every path's inode
    durable_names: dict[str, int]
    contents: dict[int, bytes | None]  # by inode; None is a directory
    durable: dict[int, bytes]
    directories: frozenset[int]
    log: str
    log_durable: int
    half_checkpoint: tuple[Image, ...] = ()


class Disk(Files):
    """Does what it is asked below `root`, and notes a point after each step."""

    def __init__(self, root: Path, store: str = "") -> None:
        self.root = root
        self.log = os.path.join(store, WAL)
        self.points: list[Point] = []
        self._kept: dict[int, int] = {}  # descriptors, so that no inode's number is given again
        self._durable: dict[int, bytes] = {}
        self._entries: dict[str, dict[str, int]] = {}
        self._directories: set[int] = set()
        self._log_durable = 0
        self._statement = ""
        self._before_checkpoint: Image = {}
        self._one = threading.Lock()  # objects are flushed side by side
        names, contents = self._look()
        for inode, data in contents.items():
            if data is not None:
                self._durable[inode] = data
        for directory in ["", *(name for name, inode in names.items() if contents[inode] is None)]:
            self._entries[directory] = self._listing(directory, names)
        self._log_durable = len(self._content(names, contents, self.log))

    def close(self) -> None:
        for fd in self._kept.values():
            os.close(fd)

    def watch(self, store: Store) -> None:
        """Note a point at each statement of the store's connection, too."""
        store._catalogue._connection.set_trace_callback(self._at_statement)

    def note(self, step: str) -> None:
        names, contents = self._look()
        self._log_durable = min(self._log_durable, len(self._content(names, contents, self.log)))
        halves: tuple[Image, ...] = ()
        if self._before_checkpoint:
            halves = tuple(_halves(self._before_checkpoint, self._plain(names, contents), self.log))
            self._before_checkpoint = {}
        self._directories |= {inode for inode, data in contents.items() if data is None}
        self.points.append(
            Point(
                step,
                names,
                self._surviving(),
                contents,
                dict(self._durable),
                frozenset(self._directories),
                self.log,
                self._log_durable,
                halves,
            )
        )

    # ---- steps ---------------------------------------------------------------------------------------------------
    def place_directory(self, path: Path) -> bool:
        new = super().place_directory(path)
        self.note(f"mkdir {path.name}")
        return new

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self.note(f"create {path.name}")
        return fd

    def write(self, fd: int, data: bytes) -> None:
        half = len(data) // 2
        super().write(fd, data[:half])
        self.note("half a write")
        super().write(fd, data[half:])
        self.note("write")

    def sync(self, fd: int) -> None:
        with self._one:
            self._sync(fd)

    def _sync(self, fd: int) -> None:
        super().sync(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        names, contents = self._look()
        relative = "" if path == self.root else str(path.relative_to(self.root))
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self._entries[relative] = self._listing(relative, names)
        else:
            data = contents[os.fstat(fd).st_ino]
            assert data is not None
            self._durable[os.fstat(fd).st_ino] = data
        self.note(f"sync {path.name}")

    def rename(self, source: Path, target: Path) -> None:
        with self._one:
            super().rename(source, target)
            self.note(f"rename to {target.name}")

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.note(f"unlink {path.name}")

    def _at_statement(self, statement: str) -> None:
        if self._statement == "COMMIT":
            names, contents = self._look()
            self._log_durable = len(self._content(names, contents, self.log))
        self.note(f"before {statement[:40]}")
        if statement.startswith("PRAGMA wal_checkpoint"):
            self._before_checkpoint = self._plain(*self._look())
        self._statement = statement

    # ---- what is there -------------------------------------------------------------------------------------------
    def _look(self) -> tuple[dict[str, int], dict[int, bytes | None]]:
        names: dict[str, int] = {}
        contents: dict[int, bytes | None] = {}
        for path in sorted(self.root.rglob("*")):
            relative = str(path.relative_to(self.root))
            if relative.endswith(("-shm", "lock", "in-use")) or path.parent.name == "holders":
                continue
            inode = path.stat().st_ino
            if inode not in self._kept:
                self._kept[inode] = os.open(path, os.O_RDONLY)
            names[relative] = inode
            contents[inode] = None if path.is_dir() else path.read_bytes()
        return names, contents

    def _listing(self, directory: str, names: dict[str, int]) -> dict[str, int]:
        return {name: inode for name, inode in names.items() if os.path.dirname(name) == directory}

    def _surviving(self) -> dict[str, int]:
        """The names that a power cut leaves: each flushed in its directory, up to the root."""
        found: dict[str, int] = {}

        def below(directory: str) -> None:
            for name, inode in self._entries.get(directory, {}).items():
                found[name] = inode
                if name in self._entries:
                    below(name)

        below("")
        return found

    def _content(self, names: dict[str, int], contents: dict[int, bytes | None], name: str) -> bytes:
        return contents[names[name]] or b"" if name in names else b""

    def _plain(self, names: dict[str, int], contents: dict[int, bytes | None]) -> Image:
        return {name: contents[inode] for name, inode in names.items()}


def images(point: Point) -> Iterator[tuple[str, Image]]:
    """All that a stop at this point could leave behind."""
    there = {name: point.contents[inode] for name, inode in point.names.items()}
    unflushed = {
        name
        for name, inode in point.names.items()
        if point.contents[inode] is not None and point.durable.get(inode) != point.contents[inode] and not _live(name)
    }
    flushed: Image = {}
    for name, inode in point.durable_names.items():
        flushed[name] = None if inode in point.directories else point.durable.get(inode, b"")
    kinds: dict[str, Image] = {
        "all": there,
        "flushed": flushed | {name: data for name, data in there.items() if _live(name)},
        "cut": there | {name: (there[name] or b"")[: len(there[name] or b"") // 2] for name in unflushed},
        "zero": there | {name: bytes(len(there[name] or b"")) for name in unflushed},
    }
    log = there.get(point.log) or b""
    for kind, image in kinds.items():
        yield f"{kind}, {point.step}", image
        if len(log) > point.log_durable:
            yield f"{kind}, no more of the log, {point.step}", image | {point.log: log[: point.log_durable]}
    for length in _cuts(point.log_durable, len(log)):
        yield f"log cut at {length}, {point.step}", there | {point.log: log[:length]}
        yield f"log zero from {length}, {point.step}", there | {point.log: log[:length].ljust(len(log), b"\0")}
    for image in point.half_checkpoint:
        yield f"half a checkpoint, {point.step}", image


def _live(name: str) -> bool:
    """Whether SQLite flushes it by itself."""
    return name.endswith(("catalogue.sqlite", "-wal"))


def _cuts(start: int, end: int) -> list[int]:
    """Offsets within the last transaction: its beginning, frames' borders, headers and bodies, and its last byte."""
    if start >= end:
        return []
    frames = range(start, end, FRAME)
    places = {end - 1, start + 1, start + 12, *(frame + 24 for frame in frames), *(frame + 2000 for frame in frames)}
    return sorted(place for place in {*places, *frames} if start <= place < end)


def _halves(before: Image, after: Image, log: str) -> Iterator[Image]:
    """The database partly overwritten from a log that is all there."""
    name = log.removesuffix("-wal")
    old, new = before.get(name) or b"", after.get(name) or b""
    for cut in range(0, len(new) + 1, 2048):
        yield before | {name: new[:cut] + old[cut:]}


def lay_out(image: Image, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    for name, data in sorted(image.items()):
        if data is None:
            (directory / name).mkdir(parents=True, mode=0o700, exist_ok=True)
    for name, data in image.items():
        if data is not None and (directory / name).parent.is_dir():
            (directory / name).write_bytes(data)
