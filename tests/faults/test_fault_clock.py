"""A wall clock that is set back or forward by a day, in every process at once, while they work: no effect."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aftermath import Aftermath
from house import ENDLESS, SCRIPT, House, Listener, Moment, opened, until
from refusing import library

from ssmprov import wire

SOURCE = Path(__file__).with_name("wall_clock.c")
DAY = 86400
BIN = Path(sys.executable).parent


class Clock:
    """The wall clock of every process that has its environment.

    Not Debian's faketime, which also bends timed waits on monotonic clocks, the interpreter's own among them.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / "offset"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library(SOURCE, directory)), "WALL_CLOCK": str(self._path)}

    def set(self, seconds: int) -> None:
        mode = "r+b" if self._path.exists() else "wb"
        with self._path.open(mode) as file:
            file.write(struct.pack("q", seconds))


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[House]:
    replies = [{"after": "[X]:", "pieces": [f" {i}" for i in range(200)]}, *SCRIPT["replies"]]
    script = SCRIPT | {"replies": replies}
    home = tmp_path_factory.mktemp("house")
    with opened(home, models=("talk",), environment=clock.environment, script=script) as house:
        yield house


def test_the_processes_really_see_it(house: House, clock: Clock) -> None:
    words = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    clock.set(DAY)
    said = subprocess.run(words, env={**os.environ, **clock.environment}, capture_output=True, text=True, check=True)
    wall, monotonic = map(float, said.stdout.split())
    assert abs(wall - time.time() - DAY) < 60
    assert abs(monotonic - time.monotonic()) < 60
    with house.client() as client:
        house.turn(client, "tomorrow", "tomorrow", max_tokens=0)
        assert abs(client.show("tomorrow").row.created - time.time() - DAY) < 60
    clock.set(0)


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_turns_leases_and_outcomes_do_not_notice(house: House, aftermath: Aftermath, clock: Clock, jump: int) -> None:
    name = f"jump/{'forward' if jump > 0 else 'back'}"
    key = wire.new_id()
    with house.client() as client:
        house.turn(client, "before", name, max_tokens=0, request_id=key)
        first = client.show(name).row.object
        epochs = [worker.epoch for worker in client.status().workers]
        stream = Listener(client.stream("[LONG]:", context=name, save=name, **(ENDLESS | {"ttl_s": 60.0}))).has(5)
        moment = Moment()
        clock.set(jump)
        try:
            stream.more(20)
            assert stream.longest_gap(moment.at) < 1.0
            stream.stream.cancel("keep")
            assert stream.end().error is None
            house.acknowledge(name, "before[LONG]:" + stream.text)
            house.turn(client, "after", name, max_tokens=0)
            # An outcome stands as long as before: sent again, the first turn has no second effect.
            again = client.turn("before", save=name, max_tokens=0, request_id=key)
            assert again.result.object == first
            client.gc()
            assert client.turn("before", save=name, max_tokens=0, request_id=key).result.object == first
            # Names stand in their order, and a lineage in its own.
            rows = [row.name for row in client.ls().rows]
            assert rows == sorted(rows)
            steps = client.log(name).steps
            assert [step.parent for step in steps] == [*(step.object for step in steps[1:]), ""]
            assert [worker.epoch for worker in client.status().workers] == epochs
        finally:
            clock.set(0)


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["forward", "back"])
def test_a_turn_that_was_broken_off_is_taken_up_all_the_same(
    house: House, aftermath: Aftermath, clock: Clock, jump: int, tmp_path: Path
) -> None:
    """PIPE is killed in mid-turn, the clock is set, and the next PIPE records what it had sent."""
    words = [str(BIN / "PIPE"), "--in", "USER", "--out", "X", "--stream"]
    process = subprocess.Popen(
        words, env=house.cluster.environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(b"go on")
        process.stdin.close()
        assert process.stdout.read(1)
        process.kill()
    with house.client() as client:
        until(lambda: not client.status().broker.running, "what it had asked for is done")
    clock.set(jump)
    try:
        done = subprocess.run(
            [str(BIN / "PIPE"), "--in", "USER"],
            input="next",
            env=house.cluster.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        clock.set(0)
    assert (done.returncode, done.stderr) == (0, "recording a turn that was interrupted\n")
    text = (tmp_path / ".transcript.txt").read_text()
    assert "go on" in text
    with house.client() as client:
        own = (tmp_path / ".context").read_text().strip()
        assert client.text(own) == text
        client.rm([own])


def test_a_restart_on_another_day_changes_nothing(house: House, aftermath: Aftermath, clock: Clock) -> None:
    key = wire.new_id()
    with house.client() as client:
        house.turn(client, "kept", "kept", max_tokens=0, request_id=key)
        clock.set(-DAY)
        for name in ("talk/0", "broker"):
            house.kill(name)
            house.lost(name)
        again = client.turn("kept", model="talk", save="kept", max_tokens=0, request_id=key)
        assert again.result.object == client.show("talk:kept").row.object
        clock.set(0)
