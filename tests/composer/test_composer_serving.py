from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster import busy, scripted_toml
from pytestqt.qtbot import QtBot

from clients.blocking import Client
from composer import serving
from composer.serving import Server
from ssmprov import configuration

PATIENCE_MS = 100_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("SSMPROV_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("SSMPROV_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return home


@pytest.fixture
def server(home: Path, qtbot: QtBot) -> Iterator[Server]:
    server = Server(home)
    yield server
    if server.running:
        with qtbot.waitSignal(server.ended, timeout=PATIENCE_MS):
            server.stop()


def tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def test_it_starts_a_broker_that_answers_and_ends_it_with_all_its_children(
    home: Path, server: Server, qtbot: QtBot
) -> None:
    (home / "ssmprov.toml").write_text(scripted_toml(home))
    with qtbot.waitSignal(server.ready, timeout=PATIENCE_MS):
        server.start()
    assert server.running
    with Client(configuration.load(home / "ssmprov.toml", home).endpoints()[0], timeout_s=60) as client:
        assert [model.name for model in client.status().models] == ["talk"]
    processes = tree(server.pid)
    assert len(processes) >= 3
    done: list[str] = []
    began = time.monotonic()
    failures: list[str] = []
    server.failed.connect(failures.append)
    with qtbot.waitSignal(server.ended, timeout=PATIENCE_MS) as ended:
        server.stop(lambda: done.append("first"))
        assert time.monotonic() - began < 0.2 * busy()  # it waits for nothing
        server.stop(lambda: done.append("second"))
    assert ended.args == [0]
    assert failures == []
    assert done == ["first", "second"]
    assert not server.running
    assert not any(process.is_running() for process in processes)


def test_starting_twice_starts_one(home: Path, server: Server, qtbot: QtBot) -> None:
    (home / "ssmprov.toml").write_text(scripted_toml(home))
    with qtbot.waitSignal(server.ready, timeout=PATIENCE_MS):
        server.start()
        pid = server.pid
        server.start()
    assert server.pid == pid


def test_a_broken_configuration_is_told_in_its_own_words(home: Path, server: Server, qtbot: QtBot) -> None:
    (home / "ssmprov.toml").write_text("[brocker]\n")
    with qtbot.waitSignals([server.failed, server.ended], timeout=PATIENCE_MS) as told:
        server.start()
    message = told.all_signals_and_args[0].args[0]
    assert "did not start" in message
    assert "did you mean broker?" in message
    assert not server.running


def test_a_program_that_is_not_there_is_told(server: Server, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "program", lambda: "/nowhere/ssmprov")
    with qtbot.waitSignals([server.failed, server.ended], timeout=PATIENCE_MS) as told:
        server.start()
    assert "did not start" in told.all_signals_and_args[0].args[0]
    assert not server.running


def test_one_that_dies_by_itself_is_told_and_can_be_started_again(home: Path, server: Server, qtbot: QtBot) -> None:
    (home / "ssmprov.toml").write_text(scripted_toml(home))
    with qtbot.waitSignal(server.ready, timeout=PATIENCE_MS):
        server.start()
    processes = tree(server.pid)
    with qtbot.waitSignals([server.failed, server.ended], timeout=PATIENCE_MS) as told:
        os.kill(server.pid, signal.SIGKILL)
    assert "stopped unexpectedly" in told.all_signals_and_args[0].args[0]
    psutil.wait_procs(processes[1:], timeout=60)
    assert not any(process.is_running() for process in processes)
    with qtbot.waitSignal(server.ready, timeout=PATIENCE_MS):
        server.start()


def test_stopping_what_does_not_run_calls_back_at_once(server: Server) -> None:
    done: list[int] = []
    server.stop(lambda: done.append(1))
    assert done == [1]


def test_one_can_be_stopped_while_it_comes_up(home: Path, server: Server, qtbot: QtBot) -> None:
    (home / "ssmprov.toml").write_text(scripted_toml(home))
    told: list[str] = []
    server.ready.connect(lambda: told.append("ready"))
    server.failed.connect(told.append)
    server.start()
    with qtbot.waitSignal(server.ended, timeout=PATIENCE_MS):
        server.stop()
    assert not server.running
    assert told == []
