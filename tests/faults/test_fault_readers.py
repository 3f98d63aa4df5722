"""Readers that are slow, stopped or gone: nobody else is slowed, memory stays bounded, and a slot becomes free."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from aftermath import Aftermath
from house import House, Moment, until

from clients.blocking import Client

FREE_S = 0.1
MEMORY = 16 * 2**20


def memory(house: House, name: str) -> int:
    return int(psutil.Process(house.pid(name)).memory_info().rss)


def running(client: Client) -> int:
    return sum(worker.running for worker in client.status().workers)


GONE = """
import sys
from clients.blocking import Client
stream = Client(sys.argv[1]).stream("[LONG]:", model=sys.argv[2], max_tokens=10**6, max_chars=10**6)
for piece in stream:
    print(piece, end="", flush=True)
"""


@pytest.fixture
def start_reader(house: House) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts client processes that read an endless stream; returns when it has begun."""
    made: list[subprocess.Popen[bytes]] = []

    def start(model: str = "talk", endpoint: str = "") -> subprocess.Popen[bytes]:
        words = [sys.executable, "-P", "-c", GONE, endpoint or house.cluster.endpoint, model]
        process = subprocess.Popen(words, env=house.cluster.environment, stdout=subprocess.PIPE)
        made.append(process)
        assert process.stdout is not None
        assert process.stdout.read(3)
        return process

    yield start
    for process in made:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


@pytest.mark.parametrize("over", ["ipc", "tcp"])
@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_a_killed_client_frees_its_slot_at_once(
    house: House, aftermath: Aftermath, start_reader: Callable[..., subprocess.Popen[bytes]], model: str, over: str
) -> None:
    with house.client() as client:
        reader = start_reader(model, house.tcp if over == "tcp" else "")
        until(lambda: running(client) == 1, "its turn runs")
        reader.kill()
        moment = Moment()
        until(lambda: running(client) == 0, "its slot is free")
        moment.within(FREE_S, f"the slot of a killed client over {over} is free")
