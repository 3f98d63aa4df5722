from __future__ import annotations

import pytest
from cli_runner import Run, runner
from cluster import Cluster


@pytest.fixture(scope="session")
def ssmprov(talk: Cluster) -> Run:
    """The command line beside a broker with two workers of the scripted model `talk`."""
    return runner(talk)
