"""`ssmprov up` on real processes: the way up, losses, and the way down."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import SCRIPT, Cluster, Process, busy, scripted_toml
from ports import free_port

from clients import Client

BRIDGE = '\n[[bridge]]\nport = 0\nmodel = "talk"\n'
UP = ("-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up", "--ready-file", "ready.json")


class House:
    """A working directory in which `ssmprov up` runs, and what its ready file says."""

    def __init__(self, cluster: Cluster) -> None:
        self.home = cluster.home
        self.cluster = cluster
        cluster.environment.pop("SSMPROV_SUPERVISED")
        self.up = cluster.start("up", *UP)
        self.ready_file = self.home / "ready.json"

    def serving(self) -> dict[str, Any]:
        self.up.expect(r" up \| serving ")
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def ended(self, pids: list[int]) -> None:
        """Nothing of the house is left: no process, no socket, no ready file."""
        _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=60)
        assert alive == []
        assert not self.ready_file.exists()
        assert [path.name for path in (self.home / "run").iterdir()] == ["broker.sock.lock"]


@pytest.fixture
def house(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> Iterator[Callable[..., House]]:
    def make(more: str = BRIDGE, **keys: Any) -> House:
        return House(make_cluster(scripted_toml(tmp_path, **keys) + more))

    return make


def test_it_serves_everything_and_ends_cleanly(house: Callable[..., House]) -> None:
    it = house(workers=2)
    ready = it.serving()
    assert set(ready["pids"]) == {"broker", "talk/0", "talk/1", "bridge/0"}
    assert ready["pid"] == it.up.child.pid
    [bridge] = ready["bridges"]
    assert (bridge["model"], bridge["port"] > 0) == ("talk", True)
    with it.cluster.client() as client:
        assert client.turn("x").text == "hello!"
    it.up.child.send_signal(signal.SIGINT)
    assert it.up.wait() == 0
    it.ended(list(ready["pids"].values()))


def test_ctrl_c_of_the_terminal_does_not_reach_the_children(house: Callable[..., House]) -> None:
    it = house(more="")
    ready = it.serving()
    groups = {os.getpgid(pid) for pid in ready["pids"].values()}
    assert os.getpgid(it.up.child.pid) not in groups
    assert it.up.stop() == 0


@pytest.mark.parametrize("name", ["talk/0", "broker", "bridge/0"])
def test_a_lost_child_is_started_again_and_the_reason_told(house: Callable[..., House], name: str) -> None:
    it = house()
    before = it.serving()
    os.kill(before["pids"][name], signal.SIGKILL)
    it.up.expect(rf" up \| {name} was killed by SIGKILL and will be started again in 0\.2 s")
    after = it.serving()
    assert after["pids"][name] != before["pids"][name]
    assert {k: v for k, v in after["pids"].items() if k != name} == {
        k: v for k, v in before["pids"].items() if k != name
    }
    with it.cluster.client() as client:
        assert client.turn("x").text == "hello!"
    assert it.up.stop() == 0
    it.ended(list(after["pids"].values()))


def test_children_that_have_served_are_started_again_however_often_they_crash(house: Callable[..., House]) -> None:
    """Crashes that count against a child that never served do not count once it has said that it serves."""
    it = house()
    for _ in range(3):
        pids = it.serving()["pids"]
        it.ready_file.unlink()
        for pid in pids.values():
            os.kill(pid, signal.SIGABRT)
    assert set(it.serving()["pids"]) == {"broker", "talk/0", "bridge/0"}
    assert it.up.stop() == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the loader of Linux")
def test_what_is_not_logged_is_relayed_at_every_level(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    """A library's last words are no records, and are wanted most."""
    cluster = make_cluster(scripted_toml(tmp_path))
    cluster.environment["SSMPROV_LOG"] = "error"
    cluster.environment["LD_PRELOAD"] = "/nowhere.so"  # of which the loader complains in each process
    it = House(cluster)
    it.up.expect(r"^\S+ info talk/0 \| .*/nowhere\.so")
    with cluster.client() as client:
        assert client.turn("x", model="talk").text == "hello!"
    assert it.up.stop() == 0
    assert all("/nowhere.so" in line for line in it.up.lines)


def test_the_children_go_with_a_killed_supervisor(house: Callable[..., House]) -> None:
    it = house()
    ready = it.serving()
    it.up.kill()
    _, alive = psutil.wait_procs(
        [psutil.Process(p) for p in ready["pids"].values() if psutil.pid_exists(p)], timeout=60
    )
    assert alive == []
    again = it.cluster.start("up again", *UP)
    again.expect(r" up \| serving ")
    assert json.loads(it.ready_file.read_text())["pid"] == again.child.pid
    assert again.stop() == 0


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[[model]]\nname = "talk"\nruntime = "scripted"\npath = "nowhere.json"\n', "no script .*nowhere.json"),
        ('[[model]]\nname = "talk"\nruntime = "scirpted"\npath = "x"\n', "did you mean scripted"),
    ],
)
def test_what_cannot_start_ends_everything_with_its_own_words(
    make_cluster: Callable[[str], Cluster], toml: str, words: str
) -> None:
    it = House(make_cluster(toml))
    it.up.expect(rf" up \| talk/0 cannot start: .*{words}")
    assert it.up.wait() == 1
    it.ended([])


def test_a_port_in_use_is_named(house: Callable[..., House]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        it = house(more=f'\n[[bridge]]\nport = {port}\nmodel = "talk"\n')
        it.up.expect(rf" up \| bridge/{port} cannot start: .*127.0.0.1:{port}: another program uses it.*`port`")
        assert it.up.wait() == 1
    it.ended([])


def test_a_tcp_endpoint_in_use_is_named(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        listen = f'[broker]\nlisten = ["ipc://run/broker.sock", "tcp://localhost:{port}"]\n'
        it = House(make_cluster(listen + scripted_toml(tmp_path)))
        it.up.expect(rf" up \| broker cannot start: .*127.0.0.1:{port}: another program uses it.*`listen`")
        assert it.up.wait() == 1


def test_it_tells_every_address_at_which_it_serves(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    port, metrics = free_port(), free_port()
    broker = f'[broker]\nlisten = ["tcp://localhost:{port}", "ipc://run/broker.sock"]\nmetrics_port = {metrics}\n'
    second = scripted_toml(tmp_path).replace('name = "talk"', 'name = "other"')
    it = House(make_cluster(broker + scripted_toml(tmp_path) + second + BRIDGE))
    it.serving()
    told = "\n".join(line.partition(" up | ")[2] for line in it.up.lines)
    bridge = json.loads(it.ready_file.read_text())["bridges"][0]["port"]
    assert f"port 127.0.0.1:{bridge}: talk" in told
    assert f"http://127.0.0.1:{metrics}/metrics" in told
    assert f"working directory: {it.home}" in told
    assert f"serving talk (default), other at ipc://{it.home}/run/broker.sock and tcp://127.0.0.1:{port}" in told
    with Client(f"tcp://localhost:{port}", timeout_s=60) as client:
        assert client.status().default == "talk"
    assert it.up.stop() == 0


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[brokr]\n", "did you mean broker?"),
        ("[[bridge]]\nport = 6502\nmodel = 'x'\n", "no model 'x'"),
        ("nonsense", "is not valid TOML"),
    ],
)
def test_a_wrong_configuration_starts_nothing(make_cluster: Callable[[str], Cluster], toml: str, words: str) -> None:
    it = House(make_cluster(toml))
    assert it.up.wait() == 1
    [line] = it.up.lines
    assert line.startswith("ssmprov: ")
    assert words in line


def test_a_second_one_does_not_steal_the_socket(house: Callable[..., House]) -> None:
    it = house(more="")
    ready = it.serving()
    second = it.cluster.start("second", *UP)
    second.expect(rf" up \| broker cannot start: .*another broker serves .*process {it.up.child.pid}")
    assert second.wait() == 1
    assert json.loads(it.ready_file.read_text())["pid"] == ready["pid"]
    with it.cluster.client() as client:
        assert client.turn("x").text == "hello!"
    assert it.up.stop() == 0


def test_a_stopped_child_is_killed_and_a_second_signal_hurries(house: Callable[..., House]) -> None:
    it = house(more=BRIDGE)
    ready = it.serving()
    os.kill(ready["pids"]["bridge/0"], signal.SIGSTOP)
    began = time.monotonic()
    it.up.child.send_signal(signal.SIGTERM)
    it.up.expect(r" up \| stopping")
    it.up.child.send_signal(signal.SIGTERM)
    it.up.expect(r" up \| bridge/0 did not stop in time and is now killed")
    assert it.up.wait() == 0
    assert time.monotonic() - began < 8 * busy()
    it.ended(list(ready["pids"].values()))


def test_a_running_turn_is_answered_on_the_way_down(house: Callable[..., House]) -> None:
    it = house(more="", script={**SCRIPT, "token_delay_s": 0.02})
    it.serving()
    with it.cluster.client() as client, client.stream("[LONG]:", save="kept") as stream:
        pieces = iter(stream)
        next(pieces)
        it.up.child.send_signal(signal.SIGTERM)
        shown = "".join(stream.pieces) + "".join(pieces)
        assert stream.reply.text.startswith(" w0")
        assert shown
    assert it.up.wait() == 0


def test_without_a_configuration_the_shipped_one_is_served(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path / "home", "")
    cluster.config.unlink()
    cluster.environment.pop("SSMPROV_SUPERVISED")
    up = Process("up", [*UP[:-2]], cluster.environment, tmp_path)
    up.expect("serving the shipped .*default.toml")
    up.expect("worker rwkv7-mini/[01] registered")
    up.stop()  # its status may tell of port 6502, which another program may hold
    assert not cluster.config.exists()


def test_a_log_that_nobody_reads_stops_nothing(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = make_cluster(scripted_toml(tmp_path))
    cluster.environment.pop("SSMPROV_SUPERVISED")
    read_end, write_end = os.pipe()
    os.close(read_end)
    child = subprocess.Popen(
        [sys.executable, "-P", *UP], env=cluster.environment, cwd=cluster.home, stderr=write_end, stdout=write_end
    )
    os.close(write_end)
    with cluster.client() as client:
        assert client.turn("x", model="talk").text == "hello!"
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 0
