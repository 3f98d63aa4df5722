"""kill -9 of the broker: everybody says HELLO again, and what is sent again has exactly one effect."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from aftermath import Aftermath
from house import ENDLESS, GREEDY, SOME, House, Listener
from peers import Peer, Peers

from ssmprov import ops, wire
from ssmprov.errors import Unavailable

BACK_S = 3.0
"""Not a bound of the matrix, but what a person would wait for: the restart and the way back of everybody."""


def in_threads(*works: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_a_turn_goes_on_where_it_was(house: House, aftermath: Aftermath, model: str) -> None:
    with house.client() as client, house.client(house.tcp) as over_tcp:
        house.turn(client, "before", "ctx", model=model, max_tokens=0)
        options = {"model": model, "values": GREEDY}
        going_on = Listener(client.stream("[LONG]:", context="ctx", save="ctx", **options, **ENDLESS)).has(3)
        ends = Listener(over_tcp.stream("[SOME]:", save="ends", max_tokens=120, max_chars=10**6, **options)).has(3)
        moment = house.kill("broker")
        house.lost("broker")
        came = len(going_on.pieces)
        going_on.has(came + 20)
        moment.within(BACK_S, "a stream goes on", going_on.times[came + 19])
        going_on.stream.cancel("keep")
        for name, listener, prompt in (("ctx", going_on, "before[LONG]:"), ("ends", ends, "[SOME]:")):
            listener.end()
            assert listener.error is None
            assert listener.text == listener.stream.reply.text
            house.acknowledge(name, prompt + listener.text, model)
        assert client.log(f"{model}:ctx").steps[0].kind == "turn"
        assert len(client.log(f"{model}:ctx").steps) == 2
        assert len(client.log(f"{model}:ends").steps) == 1
        assert ends.text == SOME or model == "tiny"


def test_saves_and_forks_under_way_have_one_effect_each(house: House, aftermath: Aftermath) -> None:
    """Turns and forks come without a pause while the broker dies: each is done once, and each caller is told so."""
    halfway = threading.Barrier(5)
    with house.client() as client:
        house.turn(client, "root", "root", max_tokens=0)

    def writes(index: int) -> None:
        with house.client() as client:
            for step in range(16):
                if step == 8:
                    halfway.wait()
                house.turn(client, f"<{index}.{step}>", f"writer/{index}", max_tokens=2)

    def forks(index: int) -> None:
        with house.client() as client:
            for step in range(16):
                if step == 8:
                    halfway.wait()
                client.fork("talk:root", [f"fork/{index}/{step}"])  # a second effect would be a conflict
                house.acknowledge(f"fork/{index}/{step}", "root")

    threads = in_threads(*(lambda i=i: writes(i) for i in range(2)), *(lambda i=i: forks(i) for i in range(2)))
    halfway.wait()
    house.kill("broker")
    house.lost("broker")
    for thread in threads:
        thread.join()
    assert len(house.acknowledged.keys() & {f"talk:fork/{i}/{j}" for i in range(2) for j in range(16)}) == 32
    with house.client() as client:
        assert [client.show(f"talk:writer/{index}").row.steps for index in range(2)] == [16, 16]


def test_an_import_under_way_is_whole_or_not_there(house: House, aftermath: Aftermath, tmp_path: Path) -> None:
    """One that was broken off is done again, as its error says."""
    with house.client() as client:
        house.turn(client, "x" * 60_000, "large", max_tokens=0)
        client.export("talk:large", tmp_path / "large.ssm")
        under_way = threading.Event()

        def kill() -> None:
            under_way.wait()
            house.kill("broker")
            house.lost("broker")

        [killer] = in_threads(kill)
        broken_off = 0
        for attempt in range(3):
            name = f"imported/{attempt}"
            under_way.set()
            try:
                client.import_(tmp_path / "large.ssm", name, model="talk")
            except Unavailable:
                broken_off += 1
                if name not in {row.name for row in client.ls("imported/", model="talk").rows}:
                    client.import_(tmp_path / "large.ssm", name, model="talk")
            house.acknowledge(name, "x" * 60_000)
        killer.join()
        print(f"{broken_off} of 3 imports were broken off")


def test_an_import_that_was_done_is_told_again_by_the_store(house: House, aftermath: Aftermath, peers: Peers) -> None:
    """The answer was lost with the broker: a client sends the request again, and not the file."""
    with house.client() as client:
        house.turn(client, "carried", "carried", max_tokens=0)
        path = house.home / "carried.ssm"
        exported = client.export("talk:carried", path)
    request = wire.Request(
        wire.new_id(), "ckpt.import", "talk", args=wire.pack(ops.Import("landed", exported.bytes, exported.sha256))
    )
    first = peers(house.cluster.endpoint)
    first.say(request)
    first.hears(wire.Credit)
    first.say(wire.Chunk(id=request.id, seq=1, last=True), [path.read_bytes()])
    done = wire.unpack(first.hears(wire.Final).result, ops.Row)
    house.acknowledge("landed", "carried")
    house.kill("broker")
    house.lost("broker")
    again = peers(house.cluster.endpoint)
    request.attempt = 2
    again.say(request)
    answer: wire.Final = again.hears(wire.Final)
    assert answer.error is None, answer.error
    assert wire.unpack(answer.result, ops.Row) == done


def test_peers_are_told_to_say_hello_and_then_served(house: House, aftermath: Aftermath, peers: Peers) -> None:
    peer: Peer = peers(house.cluster.endpoint)
    moment = house.kill("broker")
    house.lost("broker")
    peer.say(wire.Pulse())
    assert peer.hears(wire.Bye).code == "hello_first"
    peer.say(wire.Hello(peer.id))
    peer.hears(wire.Hello)
    peer.status_when(lambda status: [worker.state for worker in status.workers] == ["ready"] * 4)
    moment.within(BACK_S, "everybody is back")
