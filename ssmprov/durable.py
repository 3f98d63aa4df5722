"""Writes files so that they exist completely or not at all, even after a kill or a power cut."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file durably: the old content stays until all of the new content is on the disk."""
    write(path, data)
    sync(path.parent)


def write(path: Path, data: bytes) -> None:
    """Like `replace`, without syncing the directory: a caller that changes more in it syncs once at the end."""
    temporary = path.with_name(f"{path.name if path.name[:1] == '.' else '.' + path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):  # keep the permissions of the old file
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(directory: Path) -> None:
    """Make changes to the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to errors from writing, which the system leaves out, for example for a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
