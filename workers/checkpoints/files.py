"""The steps of a durable write, one method each, so that a test can fail or stop the machine after any of them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ssmprov import locks
from ssmprov.causes import cause_of, explained, explaining, shown
from ssmprov.errors import BadRequest, Busy, NoSpace, Unavailable, Unsupported

IN_USE = "in-use"
"""The file that every process locks that has the store open."""


class Files:
    """Never follows a symbolic link in the last part of a path. Files and directories are for their owner alone."""

    def make_directory(self, path: Path) -> None:
        """Make the directory, and make it durable in its parent."""
        if self.place_directory(path):
            self.sync_directory(path.parent)

    def place_directory(self, path: Path) -> bool:
        """Make the directory; returns whether it is new, and so not durable yet."""
        new = False
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            new = True
            with contextlib.suppress(FileExistsError):  # another process was faster
                path.mkdir(mode=0o700)
            mode = path.lstat().st_mode
        if not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, "not a plain directory", str(path))
        return new

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def write(self, fd: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def sync(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def sync_directory(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.sync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def open(self, path: Path) -> int:
        """Open a regular file for reading. Raises OSError: ELOOP for a link, EINVAL for anything else."""
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return fd

    @contextmanager
    def replacing(self, path: Path, temporary: Path) -> Iterator[Callable[[bytes], None]]:
        """A function that writes `path`, which appears complete and durable when the body ends, or not at all.

        `temporary` is a free name in the same directory. Raises NoSpace that names the file.
        """
        with no_space(path):
            fd = self.create(temporary)
            try:
                try:
                    yield lambda data: self.write(fd, data)
                    self.sync(fd)
                finally:
                    os.close(fd)
                self.rename(temporary, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    self.unlink(temporary)
                raise
            self.sync_directory(path.parent)


@contextmanager
def no_space(path: Path) -> Iterator[None]:
    """Raise NoSpace that names the file if the disk is full."""
    try:
        yield
    except OSError as error:
        if cause_of(error).error is not NoSpace:
            raise
        raise explained(error, f"{shown(path)} was not written, and nothing else has changed", path) from error


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Raise NoSpace, Unavailable or Unsupported that names the file if the system refuses an operation on it."""
    try:
        with no_space(path):
            yield
    except OSError as error:
        ours = explained(error, f"{shown(path)} cannot be written", path)
        if isinstance(ours, BadRequest) and not isinstance(ours, Unsupported):  # whoever asked is not to blame
            raise Unavailable(ours.message, **ours.details) from error
        raise ours from error


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold the lock file; the lock ends with the process. Raises BlockingIOError if it is taken and `wait` is false,
    and Unsupported if its file system has no locks.
    """
    with explaining(f"{shown(path)} cannot be used as a lock", path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        locks.lock(fd, (locks.SHARED if shared else locks.EXCLUSIVE) | (0 if wait else locks.NO_WAIT), path)
        locks.check_records(fd, path)
        yield
    finally:
        os.close(fd)


@contextmanager
def in_use(directory: Path, *, alone: bool = False) -> Iterator[None]:
    """Keep the store open, or (`alone`) keep all others out. Raises Busy if another process is in the way.

    Every process that has the store open shares this lock for as long.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(directory / IN_USE, shared=not alone, wait=False))
        except BlockingIOError as error:
            what = "is open in another process: stop whatever serves it first" if alone else "is being put in place"
            raise Busy(f"the store {directory} {what}, and try again", retry_ms=1000) from error
        yield
