from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster, rwkv_toml, scripted_toml


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two models and three workers at once: two of an RWKV-7 with random weights, one of a script."""
    home = tmp_path_factory.mktemp("house")
    cluster = Cluster(home, rwkv_toml(home, workers=2) + scripted_toml(home)).up()
    yield cluster
    cluster.close()
