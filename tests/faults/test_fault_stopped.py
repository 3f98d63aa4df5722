"""SIGSTOP of a worker: seen within a second, and what wakes later commits nothing."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from aftermath import Aftermath
from house import ENDLESS, GREEDY, House, Listener, Moment, opened, until

from clients.blocking import Client
from ssmprov.errors import WorkerLost

SEEN_S = 1.0


def stopped_for(pid: int, seconds: float) -> None:
    """The fault itself: a process that does not run for a while."""
    os.kill(pid, signal.SIGSTOP)
    threading.Event().wait(seconds)
    os.kill(pid, signal.SIGCONT)


def streaming(client: Client, model: str, name: str) -> Listener:
    stream = client.stream("[LONG]:", model=model, context=name, save=name, values=GREEDY, **ENDLESS)
    return Listener(stream).has(3)


@pytest.mark.parametrize("model", ["talk", "tiny"])
def test_it_is_lost_within_a_second_and_nobody_else_notices(house: House, aftermath: Aftermath, model: str) -> None:
    with house.client() as client, house.client() as other:
        house.turn(client, "before", "mine", model=model, max_tokens=0)
        house.turn(other, "beside", "yours", model=model, max_tokens=0)
        client.move(f"{model}:mine", f"{model}/0")
        other.move(f"{model}:yours", f"{model}/1")
        mine, yours = streaming(client, model, "mine"), streaming(other, model, "yours")
        moment = house.kill(f"{model}/0", signal.SIGSTOP)
        mine.end()
        moment.within(SEEN_S, f"a stopped worker of {model} is lost", mine.ended_at)
        assert isinstance(mine.error, WorkerLost)
        assert mine.error.details["committed"] is False
        house.lost(f"{model}/0")  # which waits for its SIGKILL: it never wakes
        yours.more()
        assert yours.longest_gap(moment.at) < SEEN_S
        yours.stream.cancel("keep")
        assert yours.end().error is None
        house.acknowledge("yours", "beside[LONG]:" + yours.stream.reply.text, model)
        house.turn(client, "[LONG]:", "mine", model=model, max_tokens=3)


def test_a_short_stop_costs_nothing(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        house.turn(client, "before", "short", max_tokens=0)
        client.move("talk:short", "talk/0")
        before = client.status().workers
        stream = streaming(client, "talk", "short")
        for _ in range(3):
            stopped_for(house.pid("talk/0"), 0.25)
            stream.more()
        stream.stream.cancel("keep")
        assert stream.end().error is None
        house.acknowledge("short", "before[LONG]:" + stream.stream.reply.text)
        assert [worker.epoch for worker in client.status().workers] == [worker.epoch for worker in before]


@pytest.mark.parametrize("seconds", [0.55, 0.65, 0.75])
def test_a_stop_that_ends_about_the_bound_is_either_noticed_or_not(
    house: House, aftermath: Aftermath, seconds: float
) -> None:
    """Lost or not, nothing is in between: the turn is answered once, and its context is what the answer says."""
    name = f"about/{seconds}"
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0)
        client.move(f"talk:{name}", "talk/0")
        stream = streaming(client, "talk", name)
        stopped_for(house.pid("talk/0"), seconds)
        came = len(stream.pieces)
        until(lambda: stream.ended_at or len(stream.pieces) > came + 60, "it is lost or goes on")
        print(f"a stop of {seconds} s: {'lost' if stream.ended_at else 'goes on'}")
        if stream.ended_at:
            assert isinstance(stream.error, WorkerLost)
            house.lost("talk/0")
        else:
            stream.stream.cancel("keep")
            assert stream.end().error is None
            house.acknowledge(name, "before[LONG]:" + stream.stream.reply.text)
        house.turn(client, "[LONG]:", name, max_tokens=3)


ELSEWHERE = (
    "import runpy, socket, sys; socket.gethostname = lambda: 'elsewhere'; sys.argv[1:] = ['--model', 'talk']; "
    "runpy.run_module('workers', run_name='__main__', alter_sys=True)"
)
"""A worker that says that it runs on another machine, where the broker cannot kill it: one in a container, say."""


def test_one_that_cannot_be_killed_commits_nothing_when_it_wakes(tmp_path: Path) -> None:
    with opened(tmp_path / "house", models=("talk",)) as house, house.client() as client:
        house.cluster.processes["talk/0"].stop()
        old = house.cluster.start("elsewhere", "-c", ELSEWHERE)
        old.expect(" serves ")
        house.turn(client, "before", "ctx", max_tokens=0)
        client.move("talk:ctx", "talk/0")
        stream = Listener(client.stream("[SOME]:", context="ctx", save="fresh")).has(3)
        moment = Moment()
        old.child.send_signal(signal.SIGSTOP)
        stream.end()
        moment.within(SEEN_S, "a stopped worker elsewhere is lost", stream.ended_at)
        assert isinstance(stream.error, WorkerLost)
        assert stream.error.details["committed"] is False
        new = house.start("talk/0")
        new.expect(" serves ")
        house.turn(client, "[SOME]:", "ctx", max_tokens=2)
        # Awake, it goes on with its turn to the end, and asks for its lease.
        old.child.send_signal(signal.SIGCONT)
        house.cluster.processes["broker"].expect(r"refused worker talk/0: talk/0 is leased to process")
        assert client.turn("[SOME]:", context="ctx").result.worker == "talk/0"
        assert old.child.poll() is None
        # Once the name is free it may have it, under a new epoch; its lane of the store has long been past the commit.
        assert new.stop() == 0
        old.expect(r"talk/0 serves talk \(epoch [3-9]\)")
        house.turn(client, "[SOME]:", "ctx")
        assert client.text("talk:ctx") == house.acknowledged["talk:ctx"]
        assert "fresh" not in {row.name for row in client.ls().rows}
        assert client.verify().faults == []
        assert old.stop() == 0
