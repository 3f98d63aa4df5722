"""Files that are there whole or not at all, whatever is killed, a power cut included."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace(path: Path, data: bytes) -> None:
    """Write a file durably: what stood there before stands until all of it is on the disk."""
    write(path, data)
    sync(path.parent)


def write(path: Path, data: bytes) -> None:
    """As `replace`, but for the directory: who has more to do in it syncs that at the end."""
    temporary = path.with_name(f"{path.name if path.name[:1] == '.' else '.' + path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path), temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):  # who may read it stays as it was
            temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of writing say which file it was about, which the system leaves out: a full disk, for one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
