"""File systems that refuse something: real ones where the test may mount them, else a library for LD_PRELOAD."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


def library(source: Path, directory: Path) -> Path:
    """A library for LD_PRELOAD, compiled into the directory. The test is skipped where there is no compiler."""
    target = directory / f"{source.stem}.so"
    compiler = shutil.which("cc") or shutil.which("c++")
    words = [compiler or "cc", "-shared", "-fPIC", "-O1", "-x", "c", str(source), "-o", str(target), "-ldl"]
    if compiler is None or subprocess.run(words, check=False).returncode:
        pytest.skip("this test needs a C compiler for a small library")
    return target


class Refusing:
    """What a process gets into its environment, so that a directory refuses something to it."""

    def __init__(self, directory: Path) -> None:
        self._library = library(SOURCE, directory)

    def environment(self, below: Path, **refused: int) -> dict[str, str]:
        """`refused` maps flock, parts or writes to the number of the error: see `refusing.c`."""
        numbers = {f"REFUSE_{kind.upper()}": str(number) for kind, number in refused.items()}
        return {"LD_PRELOAD": str(self._library), "REFUSE_BELOW": str(below), **numbers}


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def mounted(path: Path, options: str = "") -> Iterator[Path]:
    """A tmpfs of its own. The test is skipped where it may not be mounted."""
    path.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", options or "defaults", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("this test needs the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def make_read_only(path: Path) -> None:
    """Mount a tmpfs again, for reading only."""
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
