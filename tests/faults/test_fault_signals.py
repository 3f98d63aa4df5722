"""Ctrl-C, SIGTERM and SIGHUP, to `up` and to each process: turns end at a token's edge, and nothing is left over."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aftermath import Aftermath
from house import ENDLESS, GREEDY, PATIENCE_S, UP, House, Listener, Moment, opened, until

END_S = 5.0
"""A person waits that long for everything to be down; no bound of the matrix."""

SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP}


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with opened(tmp_path_factory.mktemp("supervised"), supervised=True) as house:
        yield house


def nothing_is_left(house: House, children: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    assert house.processes() == set()
    assert not (house.home / "ready.json").exists()
    assert [path.name for path in (house.home / "run").iterdir()] == ["broker.sock.lock"]
    if not any("kill" in line for line in house.up.lines):  # else `gc` removes it, which sees that nobody holds it
        for model in house.models:
            assert list((house.home / ".checkpoints" / model).glob("holders/*")) == []
    for left in house.home.glob(".checkpoints/*/holders/*"):
        left.unlink()


@pytest.mark.parametrize("name", SIGNALS)
def test_up_ends_turns_at_a_tokens_edge_and_answers_them(supervised: House, name: str) -> None:
    house = supervised
    if house.up.child.poll() is not None:
        house.open()
    children = psutil.Process(house.up.child.pid).children(recursive=True)
    with house.client() as client:
        turns = {}
        for model in house.models:
            if f"{model}:ended" not in house.acknowledged:
                house.turn(client, "before", "ended", model=model, max_tokens=0)
            stream = client.stream("[LONG]:", model=model, context="ended", save="ended", values=GREEDY, **ENDLESS)
            turns[model] = Listener(stream).has(3)
        moment = Moment()
        house.up.child.send_signal(SIGNALS[name])
        for model, turn in turns.items():
            assert turn.end().error is None, model
            assert turn.stream.reply.result.stop == "cancelled"
            house.acknowledge("ended", house.acknowledged[f"{model}:ended"] + "[LONG]:" + turn.text, model)
    assert house.up.wait() == 0
    moment.within(END_S, f"{name} has ended everything")
    nothing_is_left(house, children)
    house.open()
    with house.client() as client:
        for model in house.models:
            assert client.text(f"{model}:ended") == house.acknowledged[f"{model}:ended"]
            assert client.verify(model=model).faults == []


def test_a_second_ctrl_c_hurries_what_does_not_end(supervised: House) -> None:
    house = supervised
    children = psutil.Process(house.up.child.pid).children(recursive=True)
    house.kill("talk/0", signal.SIGSTOP)
    house.up.child.send_signal(signal.SIGINT)
    house.up.expect(" up . stopping")
    moment = Moment()
    house.up.child.send_signal(signal.SIGINT)
    assert house.up.wait() == 0
    moment.within(END_S, "two Ctrl-C with a stopped worker")
    nothing_is_left(house, children)


@pytest.mark.parametrize("after", ["broker | ", "registered", "listens on"])
def test_a_signal_in_the_middle_of_the_start_ends_it_cleanly(supervised: House, after: str) -> None:
    house = supervised
    if house.up.child.poll() is None:
        assert house.up.stop() == 0
    (house.home / "run").mkdir(mode=0o700, exist_ok=True)
    house.up = house.cluster.start("up", *UP)
    if after == "broker | ":
        until(lambda: psutil.Process(house.up.child.pid).children(), "its first child is there")
    else:
        house.up.expect(after.replace("|", "."))
    children = psutil.Process(house.up.child.pid).children(recursive=True)
    house.up.child.send_signal(signal.SIGTERM)
    assert house.up.wait() == 0
    nothing_is_left(house, children)


# -- one process at a time


@pytest.fixture(scope="module")
def house(talking_house: House) -> House:
    return talking_house


def test_sigterm_to_a_worker_ends_its_turns_at_a_tokens_edge(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        house.turn(client, "before", "edge", max_tokens=0)
        client.move("edge", "talk/0")
        stream = Listener(client.stream("[LONG]:", context="edge", save="edge", **ENDLESS)).has(3)
        moment = Moment()
        assert house.cluster.processes["talk/0"].stop() == 0
        moment.within(2.0, "a worker has drained")
        assert stream.end().error is None
        assert stream.stream.reply.result.stop == "cancelled"
        house.acknowledge("edge", "before[LONG]:" + stream.text)
        house.start("talk/0").expect(" serves ")
        house.turn(client, "!", "edge", max_tokens=2)


def test_sigterm_to_the_broker_answers_what_runs_first(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        stream = Listener(client.stream("[LONG]:", save="drained", **ENDLESS)).has(3)
        process = house.cluster.processes["broker"]
        assert process.stop() == 0
        assert not (house.home / "run" / "broker.sock").exists()
        house.start("broker")  # a client that has not read its answer by then asks for it again
        assert stream.end().error is None
        assert stream.stream.reply.result.stop == "cancelled"
        house.acknowledge("drained", "[LONG]:" + stream.text)
        house.turn(client, "!", "drained", model="talk", max_tokens=2)


def test_sigterm_to_the_bridge_lets_its_requests_end(house: House, aftermath: Aftermath) -> None:
    with socket.create_connection(("127.0.0.1", house.bridge_port), timeout=PATIENCE_S) as tool:
        tool.sendall(b"[SOME]:\0")
        with house.client() as client:
            until(lambda: client.status().broker.running == 1, "its turn runs")
        process = house.cluster.processes["bridge/0"]
        process.child.send_signal(signal.SIGTERM)
        text = b"".join(iter(lambda: tool.recv(65536), b"")).removesuffix(b"\0").decode()
        assert text.startswith(" 0 1 2")
    assert process.wait() == 0
    house.acknowledge(f"@bridge/{house.bridge_port}", "[SOME]:" + text)
    house.start("bridge/0").expect("listens on")
    house.read_bridge()


def test_ctrl_c_of_a_terminal_reaches_no_supervised_process(house: House, aftermath: Aftermath) -> None:
    for name in ("broker", "talk/0", "bridge/0"):
        house.kill(name, signal.SIGINT)
    with house.client() as client:
        house.turn(client, "still", "here", max_tokens=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tool_that_is_interrupted_cancels_its_turn(
    house: House, aftermath: Aftermath, number: int, tmp_path: Path
) -> None:
    """Ctrl-C records what was said so far and ends with 130; SIGTERM kills it, and the turn that saves is finished."""
    words = [str(Path(sys.executable).parent / "PIPE"), "--in", "USER", "--out", "X", "--save", "tool", "--stream"]
    environment = house.cluster.environment | {"SSMPROV_HOME": str(house.home)}
    with subprocess.Popen(
        words, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"[SOME]:")
        process.stdin.close()
        process.stdout.read(1)
        os.kill(process.pid, number)
        status = process.wait(PATIENCE_S)
    with house.client() as client:
        until(lambda: not client.status().broker.running, "nothing of it runs")
        if number == signal.SIGINT:
            assert status in (0, 130)
            assert client.text("tool") == (tmp_path / ".transcript.txt").read_text()
        if client.ls("tool").rows:
            client.rm(["tool"])
