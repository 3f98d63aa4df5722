"""A runtime that hangs while its process lives, one that fails, and workers that die between two steps of a save."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aftermath import Aftermath
from house import ENDLESS, House, Listener, Moment, is_stopped, until
from tampering import order, tampered

from ssmprov.errors import SsmprovError, WorkerLost

STALL_S = 1.0
PROMPT = "[SOME]:"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with tampered(tmp_path_factory.mktemp("tampered"), stall_s=STALL_S) as house:
        yield house


def test_a_hang_in_mid_turn_fails_the_turn_and_replaces_the_worker(house: House, aftermath: Aftermath) -> None:
    with house.client() as client, house.client() as other:
        house.turn(client, "before", "hung", max_tokens=0)
        client.move("talk:hung", "talk/0")
        house.turn(other, "beside", "lively", max_tokens=0)
        other.move("talk:lively", "talk/1")
        hung = Listener(client.stream("[LONG]:", context="hung", save="hung", **ENDLESS)).has(3)
        lively = Listener(other.stream("[LONG]:", context="lively", save="lively", **ENDLESS)).has(3)
        taken = order(house, 0, "forward", "hang")
        until(lambda: not taken.exists(), "the model hangs")
        moment = Moment()
        assert client.status().workers[0].state == "ready"  # its socket's thread lives, and pulses
        hung.end()
        assert isinstance(hung.error, WorkerLost)
        assert "no progress" in str(hung.error)
        assert hung.error.details["committed"] is False
        moment.within(STALL_S + 1.0, "a hung worker is given up", hung.ended_at)
        house.lost("talk/0")
        lively.more()
        assert lively.longest_gap(moment.at) < 1.0
        lively.stream.cancel("keep")
        assert lively.end().error is None
        house.acknowledge("lively", "beside[LONG]:" + lively.stream.reply.text)
        assert client.text("talk:hung") == "before"
        house.turn(client, PROMPT, "hung", max_tokens=4)


def test_a_model_that_raises_ends_its_turns_and_not_its_worker(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        house.turn(client, "before", "raised", max_tokens=0)
        client.move("talk:raised", "talk/0")
        order(house, 0, "forward", "fail")
        with pytest.raises(SsmprovError, match="the model failed: RuntimeError: the fault that was ordered"):
            client.turn(PROMPT, context="raised", save="raised")
        house.turn(client, PROMPT, "raised")


@pytest.mark.parametrize("step", ["create", "write", "sync", "rename", "sync_directory", "commit"])
def test_a_worker_that_dies_between_two_steps_of_a_save(house: House, aftermath: Aftermath, step: str) -> None:
    """Before the catalogue's commit nothing has happened; from it on the answer is the turn's own, from the store."""
    name = f"dies/{step}"
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0)
        client.move(f"talk:{name}", "talk/0")
        order(house, 0, step, "kill")
        if step == "commit":
            reply = house.turn(client, PROMPT, name, max_tokens=10)
            assert reply.result.worker == "talk/0"
            assert client.show(f"talk:{name}").row.object == reply.result.object
        else:
            with pytest.raises(WorkerLost) as lost:
                client.turn(PROMPT, context=name, save=name, max_tokens=10)
            assert lost.value.details["committed"] is False
        house.lost("talk/0")
        house.turn(client, PROMPT, name, max_tokens=10)


@pytest.mark.parametrize("step", ["rename", "commit"])
def test_a_worker_that_is_stopped_there_is_killed_before_it_can_go_on(
    house: House, aftermath: Aftermath, step: str
) -> None:
    name = f"stops/{step}"
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0)
        client.move(f"talk:{name}", "talk/0")
        order(house, 0, step, "stop")
        stream = Listener(client.stream(PROMPT, context=name, save=name, max_tokens=10))
        until(lambda: stream.ended_at or is_stopped(house.pid("talk/0")), "it stops")
        moment = Moment()
        stream.end()
        moment.within(1.0, f"a worker stopped after its {step} is given up", stream.ended_at)
        if step == "commit":
            assert stream.error is None
            house.acknowledge(name, "before" + PROMPT + stream.text)
        else:
            assert isinstance(stream.error, WorkerLost)
        house.lost("talk/0")
        house.turn(client, PROMPT, name, max_tokens=10)
