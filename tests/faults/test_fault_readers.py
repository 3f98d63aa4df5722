"""Readers that are slow, stopped or gone: nobody else is slowed, memory stays bounded, and a slot becomes free."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import psutil
import pytest
from aftermath import Aftermath
from house import ENDLESS, GREEDY, SOME, House, Listener, Moment, until
from peers import Peers

from clients.blocking import Client
from ssmprov import ops, wire

FREE_S = 0.1
MEMORY = 16 * 2**20
WATCHED = 120
"""Pieces of the stream beside, some 20 ms apart: more than twice the longest gap that is let pass."""


def memory(house: House, name: str) -> int:
    return int(psutil.Process(house.pid(name)).memory_info().rss)


def running(client: Client) -> int:
    return sum(worker.running for worker in client.status().workers)


READER = """
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
        words = [sys.executable, "-P", "-c", READER, endpoint or house.cluster.endpoint, model]
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


def test_a_client_that_says_bye_frees_its_slot_at_once(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        leaving = house.client()
        Listener(leaving.stream("[LONG]:", model="talk", **ENDLESS)).has(3)
        moment = Moment()
        leaving.close()
        until(lambda: running(client) == 0, "its slot is free")
        moment.within(FREE_S, "the slot of a client that said BYE is free")


def test_a_killed_clients_saving_turn_is_finished(
    house: House, aftermath: Aftermath, start_reader: Callable[..., subprocess.Popen[bytes]]
) -> None:
    words = [sys.executable, "-P", "-c", READER.replace('"[LONG]:"', '"[SOME]:", save="finished"')]
    reader = subprocess.Popen(
        [*words, house.cluster.endpoint, "talk"], env=house.cluster.environment, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    with house.client() as client, reader:
        assert reader.stdout.read(3)
        reader.kill()
        reader.stdout.close()
        house.acknowledge("finished", "[SOME]:" + SOME)
        house.turn(client, "!", "finished", max_tokens=0)  # queues behind it


def test_a_stopped_client_has_its_time_to_come_back(
    house: House, aftermath: Aftermath, start_reader: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Its connection is given up, its process lives: the turn goes on, and so does the stream when it wakes."""
    with house.client() as client:
        others = client.status().broker.clients
        reader = start_reader()
        assert reader.stdout is not None
        reader.send_signal(signal.SIGSTOP)
        until(lambda: client.status().broker.clients == others, "its connection is given up")
        assert running(client) == 1
        reader.send_signal(signal.SIGCONT)
        until(lambda: client.status().broker.clients == others + 1, "it is back")
        assert running(client) == 1
        numbers = [int(word) for word in reader.stdout.read(2000).split()[:-1]]
        first = numbers[0]
        assert numbers == list(range(first, first + len(numbers)))


@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_a_reader_without_credit_slows_nobody_and_costs_no_memory(
    house: House, aftermath: Aftermath, peers: Peers, model: str
) -> None:
    """It grants three pieces and reads no more, while its turn writes on and on."""
    with house.client() as client:
        client.turn("[SOME]:", model=model, max_tokens=20)
        beside = Listener(client.stream("[LONG]:", model=model, values=GREEDY, **ENDLESS)).has(20)
        before = {name: memory(house, name) for name in house.ready["pids"]}
        slow = peers(house.cluster.endpoint)
        args = ops.Turn(stream=True, max_tokens=10**6, max_chars=10**6, values=GREEDY)
        request = wire.Request(wire.new_id(), "turn", model, credit=3, args=wire.pack(args))
        slow.say(request, [b"[LONG]:"])
        seqs = [slow.hears(wire.Partial).seq for _ in range(3)]
        assert seqs == [1, 2, 3]
        moment = Moment()
        beside.more(WATCHED)
        assert beside.longest_gap(moment.at) < 1.0
        assert not slow.socket.poll(0) or slow.hears(wire.Pulse, 1.0)
        # With credit again it gets in one piece what has gathered, and no piece is missing.
        slow.say(wire.Credit(request.id, 1))
        piece = slow.hears(wire.Partial)
        assert piece.seq == 4
        for name, was in before.items():
            assert memory(house, name) - was < MEMORY, f"{name} has grown"
        slow.say(wire.Cancel(request.id, "drop"))
        slow.hears(wire.Final)
        beside.stream.cancel("drop")
        beside.end()


def test_one_who_stops_reading_its_socket_slows_nobody_and_costs_no_memory(
    house: House, aftermath: Aftermath, start_reader: Callable[..., subprocess.Popen[bytes]], peers: Peers
) -> None:
    """Credit without end, and a socket that is never read: its pieces pile up to a bound, then it is dropped."""
    with house.client() as client:
        beside = Listener(client.stream("[LONG]:", model="talk", **ENDLESS)).has(20)
        before = {name: memory(house, name) for name in house.ready["pids"]}
        deaf = peers(house.tcp, room=1)
        args = ops.Turn(stream=True, max_tokens=10**6, max_chars=10**6)
        ids = []
        for _ in range(3):
            request = wire.Request(wire.new_id(), "turn", "talk", credit=10**6, args=wire.pack(args))
            deaf.say(request, [b"[LONG]:"])
            ids.append(request.id)
        until(lambda: running(client) == 4, "its turns run")
        moment = Moment()
        beside.more(WATCHED)
        assert beside.longest_gap(moment.at) < 1.0
        for name, was in before.items():
            assert memory(house, name) - was < MEMORY, f"{name} has grown"
        for request_id in ids:
            deaf.say(wire.Cancel(request_id, "drop"))
        until(lambda: running(client) == 1, "its turns are cancelled")
        beside.stream.cancel("drop")
        beside.end()
