"""Files that pass through a worker on their way in or out, and what a killed worker left of them.

They are in the store's directory, on the disk that holds the checkpoints: a temporary directory may be small, or in
memory. The name of a folder begins with the id and start time of its process, so a later worker can tell whether it is
still needed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssmprov.process import started_at

FOLDER = "scratch"


@contextmanager
def scratch(store: Path) -> Iterator[Path]:
    """A path for a file that is deleted afterwards."""
    folder = store / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    prefix = f"{os.getpid()}-{started_at(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as own:
        yield Path(own) / "context"


def sweep(store: Path) -> None:
    """Remove what dead processes left behind."""
    for path in (store / FOLDER).glob("*-*-*"):
        pid, started, _ = path.name.split("-", 2)
        if pid.isdecimal() and started.isdecimal() and started_at(int(pid)) != int(started):
            shutil.rmtree(path, ignore_errors=True)
