"""Two faults at once, where a designer would forget one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from aftermath import Aftermath
from house import ENDLESS, SOME, House, Listener, Moment, is_stopped, until
from tampering import order, tampered

from ssmprov import wire
from ssmprov.errors import SsmprovError, WorkerLost


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with tampered(tmp_path_factory.mktemp("tampered")) as house:
        yield house


def restart(house: House, *names: str) -> None:
    """Start what was killed, in this order."""
    for name in names:
        house.cluster.processes[name].kill()
        process = house.start(name)
        if name != "broker":
            process.expect(" serves ")


@pytest.mark.parametrize("first", ["broker", "talk/0"])
def test_broker_and_worker_killed_together_leave_one_answer(house: House, aftermath: Aftermath, first: str) -> None:
    """The client sends its turn again; nobody has it any more, so it is either run anew or told lost, but once."""
    name = f"both/{first.replace('/', '-')}"
    second = "talk/0" if first == "broker" else "broker"
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0)
        client.move(name, "talk/0")
        stream = Listener(client.stream("[SOME]:", context=name, save=name)).has(3)
        house.kill(first)
        house.kill(second)
        restart(house, "broker", "talk/0")
        stream.end()
        if stream.error is None:
            assert stream.text == SOME
            house.acknowledge(name, "before[SOME]:" + SOME)
        else:
            assert isinstance(stream.error, WorkerLost)
        house.turn(client, "!", name, model="talk", max_tokens=2)


def test_a_worker_killed_after_its_commit_while_the_broker_is_down(house: House, aftermath: Aftermath) -> None:
    """Nobody could be told of the commit but the store, which tells it to whoever asks again."""
    with house.client() as client:
        house.turn(client, "before", "silent", max_tokens=0)
        client.move("silent", "talk/0")
        stream = Listener(client.stream("[SOME]:", context="silent", save="silent")).has(3)
        house.kill("broker")
        taken = order(house, 0, "commit", "kill")
        until(lambda: not taken.exists(), "it commits")
        restart(house, "broker", "talk/0")
        assert stream.end().error is None
        assert stream.text == SOME
        house.acknowledge("silent", "before[SOME]:" + SOME)
        assert client.show("talk:silent").row.steps == 2


def test_a_broker_killed_while_a_worker_is_stopped(house: House, aftermath: Aftermath) -> None:
    """The new broker has never heard of the stopped one, which wakes, comes back and ends its turn."""
    with house.client() as client:
        house.turn(client, "before", "asleep", max_tokens=0)
        client.move("asleep", "talk/0")
        stream = Listener(client.stream("[LONG]:", context="asleep", save="asleep", **ENDLESS)).has(3)
        house.kill("talk/0", 19)
        until(lambda: is_stopped(house.pid("talk/0")), "it is stopped")
        restart(house, "broker")
        house.kill("talk/0", 18)
        came = len(stream.pieces)
        until(lambda: stream.ended_at or len(stream.pieces) > came + 50, "it goes on, or is lost")
        if stream.ended_at:
            assert isinstance(stream.error, SsmprovError)
            if house.cluster.processes["talk/0"].child.poll() is not None:
                restart(house, "talk/0")
        else:
            stream.stream.cancel("keep")
            assert stream.end().error is None
            house.acknowledge("asleep", "before[LONG]:" + stream.text)
        house.turn(client, "!", "asleep", model="talk", max_tokens=2)


@pytest.mark.parametrize("step", ["rename", "commit"])
def test_everybody_killed_between_the_object_and_its_acknowledgement(
    house: House, aftermath: Aftermath, step: str
) -> None:
    """Between the object's rename and the catalogue's commit nothing has happened; after it all of it has."""
    name = f"power/{step}"
    key = wire.new_id()
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0)
        client.move(name, "talk/0")
        order(house, 0, step, "stop")
        stream = Listener(client.stream("[SOME]:", context=name, save=name, request_id=key)).has(3)
        until(lambda: is_stopped(house.pid("talk/0")), "it stops there")
        for who in ("broker", "talk/0", "talk/1"):
            house.kill(who)
        restart(house, "broker", "talk/0", "talk/1")
        stream.end()
        text = client.text(f"talk:{name}")
        assert text == ("before[SOME]:" + SOME if step == "commit" or stream.error is None else "before")
        house.acknowledge(name, text)
        if step == "commit":
            assert client.turn("[SOME]:", model="talk", context=name, save=name, request_id=key).text == SOME
        house.turn(client, "!", name, model="talk", max_tokens=2)


def test_a_pinned_contexts_worker_that_never_comes_back(house: House, aftermath: Aftermath) -> None:
    """Its turns wait, say why when their time is out, and a move lets them go on elsewhere; others do not wait."""
    with house.client() as client:
        house.turn(client, "before", "pinned", max_tokens=0)
        client.move("pinned", "talk/0")
        house.turn(client, "free", "free", max_tokens=0)
        house.cluster.processes["talk/0"].kill()
        until(lambda: len(client.status().workers) == 1, "the broker knows it")
        moment = Moment()
        with pytest.raises(SsmprovError, match=r"time ran out while it waited|pinned to talk/0"):
            client.turn("!", context="pinned", save="pinned", max_tokens=2, ttl_s=1.0)
        moment.within(1.5, "a turn for a worker that is gone is told so in its time")
        house.turn(client, "!", "free", max_tokens=2)
        client.move("pinned", "talk/1")
        assert house.turn(client, "!", "pinned", max_tokens=2).result.worker == "talk/1"
        restart(house, "talk/0")


def test_two_clients_that_send_one_id_while_its_worker_dies(house: House, aftermath: Aftermath) -> None:
    key = wire.new_id()
    ends: list[str] = []

    def ask() -> None:
        with house.client(patience_s=20.0) as client:
            try:
                ends.append(client.turn("[SOME]:", model="talk", context="pair", save="pair", request_id=key).text)
            except SsmprovError as error:
                ends.append(error.code)

    with house.client() as client:
        house.turn(client, "before", "pair", max_tokens=0)
        client.move("pair", "talk/0")
        order(house, 0, "commit", "kill")
        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        house.lost("talk/0")  # to which the context is pinned
        for thread in threads:
            thread.join()
        assert ends == [SOME, SOME]
        house.acknowledge("pair", "before[SOME]:" + SOME)
        assert client.show("talk:pair").row.steps == 2
