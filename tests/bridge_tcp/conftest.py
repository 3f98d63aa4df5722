"""Bridges as real processes, in front of a real broker and worker of the scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bridges import SCRIPT, Bridge
from cluster import Cluster, scripted_toml


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("bridge")
    cluster = Cluster(home, scripted_toml(home, script=SCRIPT)).up()
    yield cluster
    cluster.close()


@pytest.fixture(scope="session")
def client(scripted: Cluster) -> Any:
    return scripted.client()


@pytest.fixture
def make_bridge(scripted: Cluster, tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    """Starts bridges, by default on free ports; takes options of the command line and keys of the TOML table."""
    made: list[Bridge] = []

    def make(port: int = 0, *, model: str = "talk", wait: bool = True, **keys: Any) -> Any:
        config = tmp_path / f"bridge{len(made)}.toml"
        table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
        base = scripted.config.read_text()
        config.write_text(f'{base}\n[[bridge]]\nport = {port}\nmodel = "{model}"\n{table}')
        ready = tmp_path / f"ready{len(made)}"
        arguments = ["-m", "bridge_tcp", "--config", str(config), "--index", "0", "--ready-file", str(ready)]
        process = scripted.start(f"bridge {config}", *arguments)
        if not wait:
            return process
        made.append(Bridge(scripted, process, ready))
        return made[-1]

    yield make
    for bridge in made:
        if not bridge.process.closed:
            bridge.process.kill()


@pytest.fixture
def bridge(make_bridge: Callable[..., Bridge], client: Any) -> Bridge:
    found = make_bridge()
    if left := [row.name for row in client.ls(found.live, reserved=True).rows]:  # of an earlier test on this port
        client.rm(left)
    return found
