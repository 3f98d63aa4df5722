from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Run, runner
from cluster import Cluster, scripted_toml
from places import BIN, SCRIPT_SHELL, Shell


@pytest.fixture(scope="session")
def ssmprov(talk: Cluster) -> Run:
    """The command line beside a broker with two workers of the scripted model `talk`."""
    return runner(talk)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("shell")
    made = Cluster(home, scripted_toml(home, workers=2, script=SCRIPT_SHELL)).up()
    yield made
    made.close()


@pytest.fixture
def place(tmp_path: Path, cluster: Cluster) -> Path:
    """A working directory of its own, in a store without contexts."""
    with cluster.client() as client:
        names = [row.name for row in client.ls(model="talk").rows]
        if names:
            client.rm(names)
    directory = tmp_path / "place"
    directory.mkdir()
    return directory


@pytest.fixture
def sh(cluster: Cluster, place: Path) -> Shell:
    def run(line: str, text: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            input=text if isinstance(text, bytes) else text.encode(),
            env=cluster.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"} | environment,
            cwd=place,
            capture_output=True,
            timeout=200,
            check=False,
        )

    return run
