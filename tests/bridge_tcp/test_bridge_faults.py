"""Bridges under abuse, at their beginning and at their end."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bridges import PATIENCE_S, Bridge, heard
from cluster import busy
from hypothesis import given, settings
from hypothesis import strategies as st

from ssmprov.process import EXIT_CONFIGURATION
from ssmprov.transcript import FENCE

Make = Callable[..., Any]
PRIMER = Path(__file__).parents[3] / "shared" / "legacy" / "primer_cli.txt"


def memory_kib(pid: int) -> int:
    return int(
        next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmRSS" in line).split()[1]
    )


def test_the_live_context_outlives_a_killed_bridge(make_bridge: Make, client: Any) -> None:
    first = make_bridge()
    first.say("/load none")
    client.turn("primer", context="fresh", save=first.live, create=True)
    first.say("said")
    client.fork(first.live, [f"{first.live}/7-deadbeef"])
    first.process.kill()
    second = make_bridge(first.port)
    second.process.expect("removed 1 temporary")
    assert second.say("more") == "ok"
    assert client.text(second.live) == "primeroksaidokmoreok"
    assert [row.name for row in client.ls(second.live, reserved=True).rows] == [second.live]


def test_sigterm_ends_idle_connections_and_lets_running_requests_end(bridge: Bridge, client: Any) -> None:
    with bridge.open(b"idle") as idle, bridge.open("slow") as slow:
        while not any(worker.running for worker in client.status().workers):  # it has come so far as its worker
            pass
        bridge.process.child.send_signal(signal.SIGTERM)
        assert heard(slow) == "s" * 80
        with pytest.raises((ConnectionError, AssertionError)):
            heard(idle)
    assert bridge.process.wait() == 0
    with pytest.raises(ConnectionError):
        bridge.say("late")


def test_a_supervised_bridge_leaves_ctrl_c_to_its_supervisor(bridge: Bridge) -> None:
    bridge.process.child.send_signal(signal.SIGINT)
    assert bridge.say("still here") == "ok"
    assert bridge.stop() == 0


def test_the_ready_file_tells_the_port_and_goes_at_the_end(bridge: Bridge, tmp_path: Path) -> None:
    ready = tmp_path / "ready0"
    assert json.loads(ready.read_text()) == {"port": bridge.port, "host": "127.0.0.1"}
    bridge.stop()
    assert not ready.exists()


def test_a_port_that_is_taken_is_named(make_bridge: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = make_bridge(port, wait=False)
        process.expect(f"cannot listen on 127.0.0.1:{port}: another program uses it")
        assert process.wait() == EXIT_CONFIGURATION


def test_without_a_broker_a_request_is_told_how_to_start_one(make_bridge: Make, tmp_path: Path) -> None:
    bridge = make_bridge()
    home = tmp_path / "empty"
    home.mkdir()
    shutil.copy(bridge.cluster.config, home / "ssmprov.toml")
    ready = tmp_path / "lonely"
    environment = bridge.cluster.environment | {"SSMPROV_HOME": str(home)}
    arguments = ["-m", "bridge_tcp", "--port", "0", "--model", "talk", "--ready-file", str(ready)]
    bridge.cluster.environment, kept = environment, bridge.cluster.environment
    try:
        lonely = Bridge(bridge.cluster, bridge.cluster.start("lonely", *arguments), ready)
        said = lonely.say("hello")
        assert said.startswith("[error] no broker answers")
        assert "ssmprov up" in said
        assert lonely.stop() == 0
    finally:
        bridge.cluster.environment = kept


def test_a_byte_a_minute_meets_the_deadline(make_bridge: Make) -> None:
    bridge = make_bridge(idle_s=0.5)
    with bridge.open(b"a") as connection:
        began = time.monotonic()
        connection.settimeout(0.2)
        data = b""
        while not data:
            try:
                data = connection.recv(1000)
            except TimeoutError:
                connection.sendall(b"b")
        assert data.startswith(b"[error] no complete request arrived within 0.5 s")
        assert time.monotonic() - began < 5 * busy()
    assert bridge.say("hello") == "ok"


def test_who_was_refused_and_stays_keeps_nobody_out(make_bridge: Make) -> None:
    bridge = make_bridge(connections=2, idle_s=0.3)
    with bridge.open(b"a") as one, bridge.open(b"b") as two:
        for refused in (one, two):
            assert refused.recv(1000).startswith(b"[error] no complete request arrived")
        assert bridge.say("hello") == "ok"


def test_of_many_who_come_at_once_the_one_with_a_request_is_heard(make_bridge: Make) -> None:
    """It came first, and so would be the first to make room; but what it has sent only waits to be read."""
    bridge = make_bridge(connections=2)
    bridge.process.child.send_signal(signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        asking = stack.enter_context(bridge.open("/k"))
        for _ in range(6):
            stack.enter_context(bridge.open())
        bridge.process.child.send_signal(signal.SIGCONT)
        assert heard(asking) == "top_k = 0"


def test_a_request_past_the_cap_is_refused_before_it_is_kept(make_bridge: Make) -> None:
    bridge = make_bridge(request_bytes="1 MiB")
    before = memory_kib(bridge.process.child.pid)
    with bridge.open() as connection, contextlib.suppress(ConnectionError):
        for _ in range(64):
            connection.sendall(b"x" * 2**20)
    assert memory_kib(bridge.process.child.pid) - before < 16 * 1024
    assert bridge.say("x" * (2**20 + 1)).startswith("[error] the request is larger than 1048576 bytes")
    assert bridge.say("hello") == "ok"


def test_a_thousand_idle_connections_keep_nobody_out(make_bridge: Make) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    bridge = make_bridge(connections=50)
    try:
        before = memory_kib(bridge.process.child.pid)
        with contextlib.ExitStack() as idle:
            for _ in range(1000):
                idle.enter_context(socket.create_connection(("127.0.0.1", bridge.port), timeout=PATIENCE_S))
            assert bridge.say("hello") == "ok"
            assert memory_kib(bridge.process.child.pid) - before < 16 * 1024
            assert len(os.listdir(f"/proc/{bridge.process.child.pid}/fd")) < 120
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_requests_than_connections_are_refused_at_once(make_bridge: Make, client: Any) -> None:
    bridge = make_bridge(connections=2)
    client.turn("", model="talk", save="beside", create=True, max_tokens=0)
    with bridge.open("slow") as one, bridge.open("!beside\nslow") as two:
        while client.status().broker.running < 2:
            pass
        assert bridge.say("/t").startswith("[error] busy: ")
        assert heard(one) == heard(two) == "s" * 80


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_leave_the_bridge_alive(shared_bridge: Any, data: bytes) -> None:
    with shared_bridge.open(data + b"\0") as connection:
        heard(connection)
    assert shared_bridge.say("/k") == "top_k = 0"


@pytest.fixture(scope="module")
def shared_bridge(scripted: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    ready = tmp_path_factory.mktemp("shared") / "ready"
    arguments = ["-m", "bridge_tcp", "--port", "0", "--model", "talk", "--ready-file", str(ready)]
    bridge = Bridge(scripted, scripted.start("shared bridge", *arguments), ready)
    yield bridge
    bridge.stop()


def test_a_reset_connection_leaves_the_bridge_alive(bridge: Bridge) -> None:
    with bridge.open("slow") as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert bridge.say("hello") == "ok"


@pytest.mark.skipif(not PRIMER.exists(), reason="../shared with the old tools is not here")
def test_the_old_pipe_works_unchanged(bridge: Bridge, client: Any, tmp_path: Path) -> None:
    source = PRIMER.read_text().partition("(Turn 1) [FILE]: ")[2].partition(FENCE)[0]
    (tmp_path / "pipe.py").write_text(source)
    client.turn("primer", context="fresh", save="primed", create=True)
    client.settings_set("mine", {"temp": 0.75})

    def pipe(text: str, *arguments: str) -> str:
        command = [sys.executable, str(tmp_path / "pipe.py"), "--port", str(bridge.port), *arguments]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=tmp_path, timeout=200, check=True
        )
        assert done.stderr == ""
        return done.stdout

    assert pipe("/t\n") == "temp = 1.0"
    assert pipe("Hello there.\n", "--in", "USER", "--bang", "!primed mine talked", "--debang") == "end)~~~\n\n"
    assert pipe("How are you?\n", "--in", "USER", "--out", "INTERFACE") == "ok"
    written = (tmp_path / ".transcript.txt").read_text()
    assert written == (
        "(Turn 1) [USER]: Hello there.\n\n~~~(end)~~~\n\n"
        "(Turn 2) [USER]: How are you?\n\n~~~(end)~~~\n\n(Turn 3) [INTERFACE]: ok"
    )
    assert client.text(bridge.live) == "primerok" + written
    assert (tmp_path / ".counter").read_text() == "3"
    assert pipe("/t\n", "--in", "USER") == "temp = 0.75"
