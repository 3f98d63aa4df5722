"""A worker whose files may grow no further: what a full disk does, also where no small disk may be mounted."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aftermath import Aftermath
from house import House, opened

from ssmprov.errors import NoSpace


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("limited")) as house:
        yield house


@contextmanager
def files_end_at(size: int, house: House, model: str) -> Iterator[None]:
    """The workers of a model may write no file beyond that many bytes."""
    pids = [pid for name, pid in house.ready["pids"].items() if name.startswith(f"{model}/")]
    hard = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE)[1] for pid in pids}
    for pid in pids:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard[pid]))
    try:
        yield
    finally:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard[pid], hard[pid]))


@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_a_save_says_which_file_and_the_old_checkpoint_stands(house: House, aftermath: Aftermath, model: str) -> None:
    with house.client() as client:
        house.turn(client, "before", "ctx", model=model, max_tokens=0)
        for size in (0, 100, 4096):
            with files_end_at(size, house, model), pytest.raises(NoSpace) as full:
                client.turn("x" * 9000, model=model, context="ctx", save="ctx", max_tokens=0)
            file = Path(full.value.details["file"])
            assert str(file) in str(full.value)
            assert client.text(f"{model}:ctx") == house.acknowledged[f"{model}:ctx"]
        house.turn(client, "x" * 9000, "ctx", model=model, max_tokens=0)
