from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_toy import STARTED, open_store

from workers.checkpoints import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of states are laid out, and none needs the disk itself."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="ssmprov-power-", dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _no_child_outlives_its_test() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()
