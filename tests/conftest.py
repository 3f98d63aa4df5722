from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import background
import hypothesis
import pytest
from cluster import Cluster, scripted_toml
from rewording import reworded

hypothesis.settings.register_profile("untimed", deadline=None)  # a machine that is busy with something else is no fault
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--reword", type=int, metavar="SEED", help="write every message in other words")


def pytest_configure(config: pytest.Config) -> None:
    if (seed := config.getoption("reword")) is not None:
        reworded.install_for_tests(seed)
    background.pytest_configure(config)
    if os.environ.get("CI") and importlib.util.find_spec("llama_cpp") is None:
        pytest.exit("the llama tests would be skipped: `make test` builds llama.cpp first", 4)


def pytest_unconfigure() -> None:
    for name in ("outnull_file", "errnull_file"):  # the library's package opens them for good
        if (opened := getattr(sys.modules.get("llama_cpp._utils"), name, None)) is not None:
            opened.close()


@pytest.fixture(autouse=True)
def _closes_what_it_opens() -> Iterator[None]:
    """What a test leaves unclosed is reported by that test, not by a later one in which the collector comes by.

    Young objects alone are looked at, which takes no time; a whole collection after each of 5,000 tests would.
    """
    yield
    gc.collect(1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: its results repeat, and it waits for no processor that others use."""
    import torch  # only where it is wanted

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[[str], Cluster]]:
    """Makes clusters from TOML texts, and ends whatever of them still runs after the test."""
    made: list[Cluster] = []

    def make(toml: str) -> Cluster:
        cluster = Cluster(tmp_path / f"home{len(made)}", toml)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running broker with two workers of the scripted model `talk`, shared by tests that break nothing."""
    home = tmp_path_factory.mktemp("talk")
    cluster = Cluster(home, scripted_toml(home, workers=2)).up()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def slotted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running broker with a tiny model `slots` of the runtime asm and the scripted model `talk`, shared likewise."""
    from slotted import slotted_cluster

    cluster = slotted_cluster(tmp_path_factory.mktemp("slotted"))
    yield cluster
    cluster.close()
