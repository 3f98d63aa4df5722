"""Opening a store only to read it, even where nothing can be written, such as on read-only media.

SQLite cannot read a catalogue with a log there, and what was committed last may be only in the log. So the catalogue is
copied together with its log, and the copy is opened, which applies the log. The objects are read where they are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov import locks
from ssmprov.causes import PERMISSION, READ_ONLY, explaining, shown
from ssmprov.errors import Busy, Corrupt, SsmprovError, Unsupported
from workers.checkpoints.build import SUCCESSOR
from workers.checkpoints.files import IN_USE, Files, no_space
from workers.checkpoints.schema import check_files
from workers.checkpoints.sqlite_errors import damaged
from workers.checkpoints.store import CATALOGUE, Store


@contextmanager
def reading(directory: Path) -> Iterator[Store]:
    """The store in `directory`. Raises what `Store` raises, and Busy if it can only be copied but is being written."""
    try:
        store = Store(directory)
    except SsmprovError as error:
        if error.details.get("cause") not in (READ_ONLY.name, PERMISSION.name):
            raise
    else:
        with store:
            yield store
        return
    with tempfile.TemporaryDirectory(prefix="ssmprov-") as folder, _unwritten(directory) as let_others_in:
        copy = Path(folder)
        _copy_catalogue(directory, copy)
        let_others_in()
        with _open(copy, directory) as store:
            yield store


def _open(copy: Path, directory: Path) -> Store:
    try:
        return Store(copy, objects_of=directory)
    except Corrupt as error:  # it names the copy
        raise damaged(directory / CATALOGUE, error.details.get("what", error.message)) from error


def _copy_catalogue(directory: Path, copy: Path) -> None:
    path, files = directory / CATALOGUE, Files()
    check_files(path)
    if (directory / SUCCESSOR).exists():  # an interrupted repair or backup: the old catalogue and its log are void
        sources = {SUCCESSOR: CATALOGUE}
    else:
        sources = {name: name for name in (CATALOGUE, f"{CATALOGUE}-wal") if (directory / name).exists()}
    for source, target in sources.items():
        with (
            explaining(f"{shown(directory / source)} cannot be read", directory / source),
            no_space(copy / target),
            open(files.open(directory / source), "rb") as old,
            (copy / target).open("xb") as new,
        ):
            shutil.copyfileobj(old, new, 1 << 20)


@contextmanager
def _unwritten(directory: Path) -> Iterator[Callable[[], None]]:
    """Check that no process writes the store, and keep all out until the function is called. Raises Busy."""
    path = directory / IN_USE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # nobody has opened it since it was copied here
        yield lambda: None
        return
    try:
        try:
            locks.lock(descriptor, locks.EXCLUSIVE | locks.NO_WAIT, path)
        except BlockingIOError:
            raise Busy(
                f"the store {shown(directory)} is in use, and this user may not write to it: ask the broker that "
                "serves it (leave --store out), or ask as the user who runs it",
                retry_ms=1000,
            ) from None
        except Unsupported:  # without locks, nobody can have it open
            yield lambda: None
            return
        yield lambda: locks.lock(descriptor, locks.SHARED, path)
    finally:
        os.close(descriptor)
