"""Files that pass through a worker on their way in or out, and what a worker that was killed left of them.

They stand in the store's directory, on the disk that takes the checkpoints: a temporary directory may be small, or in
memory. A folder's name begins with its process's id and start, by which a later worker knows that nobody needs it.
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
    """A path for a file that is gone afterwards."""
    folder = store / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    prefix = f"{os.getpid()}-{started_at(os.getpid())}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as own:
        yield Path(own) / "context"


def sweep(store: Path) -> None:
    """Remove what processes that are gone have left."""
    for path in (store / FOLDER).glob("*-*-*"):
        pid, started, _ = path.name.split("-", 2)
        if pid.isdecimal() and started.isdecimal() and started_at(int(pid)) != int(started):
            shutil.rmtree(path, ignore_errors=True)
