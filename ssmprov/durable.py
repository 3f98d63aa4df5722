"""Writes files so that they exist completely or not at all, even after a kill or a power cut.

A symbolic link stays a link: the file that it points to is replaced. What is not a plain file (a pipe, a device,
`/dev/stdout`, `>(command)`) is never replaced: it gets the finished content written into it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

LONGEST_NAME = 240
"""Bytes of a file's name that its temporary file repeats, since most file systems allow 255."""

MOST_LINKS = 40
"""Links to follow, as the kernel does."""

_DESCRIPTORS = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd\Z")


class Replacement:
    """New content for `path`. Write it to the file `part`, then `commit` it or `discard` it.

    A `with` block commits if it ends without an error. An old file's permissions stay, and its owner if possible; a new
    one gets `mode` less the umask. Without `follow`, the name itself is replaced, whatever it is. Errors name `path`.
    Raises OSError.
    """

    def __init__(self, path: Path, *, mode: int = 0o666, follow: bool = True) -> None:
        self.path = path
        with naming(path):
            self._into = _descriptor(path) if follow else None
            if self._into is not None:
                handle, name = tempfile.mkstemp(prefix="ssmprov-")
                self.part = Path(name)
            else:
                self._target = path.resolve() if follow and path.is_symlink() else path
                self.part = _temporary(self._target)
                handle = os.open(self.part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            os.close(handle)

    def commit(self, *, sync_names: bool = True) -> None:
        """Put the content in place. Without `sync_names`, a power cut may still undo that."""
        try:
            with naming(self.path), self.part.open("rb") as file:
                if self._into is not None:
                    with open(self._into, "wb") as into:
                        self._into = None
                        shutil.copyfileobj(file, into)
                    return
                os.fsync(file.fileno())
                with contextlib.suppress(FileNotFoundError):
                    _keep_attributes(file.fileno(), self._target.lstat())
                self.part.replace(self._target)
        finally:
            self.discard()
        if sync_names:
            sync(self._target.parent)

    def discard(self) -> None:
        """Leave everything as it was. Does nothing after `commit`."""
        self.part.unlink(missing_ok=True)
        if self._into is not None:
            os.close(self._into)
            self._into = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def replace(path: Path, data: bytes) -> None:
    """Write a file durably: the old content stays until all of the new content is on the disk."""
    with Replacement(path) as new, naming(path):
        new.part.write_bytes(data)


def write(path: Path, data: bytes) -> None:
    """Like `replace`, but without following a link and without syncing the directory.

    A caller that changes more names syncs once at the end.
    """
    new = Replacement(path, follow=False)
    try:
        with naming(path):
            new.part.write_bytes(data)
        new.commit(sync_names=False)
    finally:
        new.discard()


def remove(path: Path) -> None:
    """Remove a file that `replace` wrote, if it is one: not the pipe or device that its content went to."""
    if is_plain(path):
        path.unlink(missing_ok=True)


def is_plain(path: Path) -> bool:
    """Whether a path is a plain file or free for one, so that it may be replaced and removed."""
    try:
        return stat.S_ISREG(path.stat().st_mode) and _held(path) is None
    except FileNotFoundError:
        return _held(path) is None


def sync(directory: Path) -> None:
    """Make changes to the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in errors from writing, which the system leaves out, for example for a full disk.

    A name of a temporary file would mean nothing to a reader, so it is replaced, too.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or _is_temporary(error.filename):
            error.filename, error.filename2 = str(path), None
        raise


def _temporary(path: Path) -> Path:
    name = path.name if path.name[:1] == "." else "." + path.name
    return path.with_name(f"{os.fsdecode(os.fsencode(name)[:LONGEST_NAME])}.{secrets.token_hex(4)}")


def _is_temporary(name: object) -> bool:
    return re.search(r"(\A|/)\.[^/]+\.[0-9a-f]{8}\Z", str(name)) is not None


def _descriptor(path: Path) -> int | None:
    """A new descriptor for what `path` names, if that is not a plain file: a file to replace, or none yet."""
    if is_plain(path):
        return None
    if (held := _held(path)) is not None:
        return os.dup(held)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY)


def _held(path: Path) -> int | None:
    """The descriptor of this process that a path such as /dev/stdout or /dev/fd/63 names, or None.

    It is used as it is, because opening it again would begin at the start of a redirected file.
    """
    for _ in range(MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if (found := _DESCRIPTORS.match(folder)) and path.name.isdecimal():
            return int(path.name) if found[1] == os.readlink("/proc/self") else None
        if not path.is_symlink():
            return None
        path = Path(folder, path.readlink())
    return None


def _keep_attributes(descriptor: int, old: os.stat_result) -> None:
    if not stat.S_ISREG(old.st_mode):
        return
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(PermissionError):
            os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
