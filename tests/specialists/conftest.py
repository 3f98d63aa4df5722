"""One house for all runs with gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, asm_toml, rwkv_toml, scripted_toml


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("learning")
    cluster = Cluster(home, rwkv_toml(home) + asm_toml(home) + scripted_toml(home)).up()
    yield cluster
    cluster.close()


@pytest.fixture
def at_home(house: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most commands run in this process: each new one would load torch for two seconds."""
    monkeypatch.setenv("SSMPROV_HOME", str(house.home))
