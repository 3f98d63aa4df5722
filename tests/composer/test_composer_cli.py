"""`ssmprov composer` as a process: what it says where it cannot draw, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, Process, command_line, scripted_toml
from pytestqt.qtbot import QtBot

PROGRAM = str(Path(sys.executable).with_name("ssmprov"))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    kept.pop("QT_QPA_PLATFORM", None)
    return subprocess.run(
        [PROGRAM, "composer", *words], env=kept | environment, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, ("there is no screen", "neither DISPLAY nor WAYLAND_DISPLAY")),
        ({"DISPLAY": ":98765"}, (":98765 does not answer", "Qt cannot be loaded")),
        ({"DISPLAY": ":98765", "QT_QPA_PLATFORM": "xcb"}, (":98765 does not answer", "Qt cannot be loaded")),
    ],
)
def test_without_a_screen_it_says_so(environment: dict[str, str], words: tuple[str, ...]) -> None:
    done = run(**environment)
    assert done.returncode == 1
    assert any(word in done.stderr for word in words), done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    done = run(str(tmp_path / "gone"), QT_QPA_PLATFORM="offscreen")
    assert done.returncode == 2
    assert "does not exist" in done.stderr


@pytest.mark.parametrize(
    ("number", "before"),
    [(signal.SIGTERM, []), (signal.SIGINT, []), (signal.SIGTERM, ["sh", "-c", 'trap "" HUP; exec "$@"', "sh"])],
    ids=["SIGTERM", "SIGINT", "SIGTERM under nohup"],
)
def test_a_signal_closes_the_window_and_keeps_its_session(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path, number: signal.Signals, before: list[str]
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "script")).up()
    place = tmp_path / "place"
    place.mkdir()
    (place / ".transcript.txt").write_text("(Turn 5) [USER]: x\n\n~~~(end)~~~\n\n")
    environment = cluster.environment | {"QT_QPA_PLATFORM": "offscreen", "PYTHONUNBUFFERED": "1"}
    arguments = ["-c", "import sys; from ssmprov.main import main; sys.exit(main())", "composer", str(place)]
    process = Process("composer", [*before, *command_line(arguments)] if before else arguments, environment, place)
    try:
        counter = place / ".counter"
        qtbot.waitUntil(lambda: counter.exists() or process.child.poll() is not None, timeout=40_000)
        assert counter.exists(), process.lines  # the launch has been carried out
        ignored = int(re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.child.pid}/status").read_text())[0], 16)
        assert bool(ignored >> (signal.SIGHUP - 1) & 1) == bool(before)
        process.child.send_signal(number)
        assert process.wait() == 0
    finally:
        process.kill()
    assert counter.read_text() == "5"
    assert json.loads((place / ".composer.json").read_text())["model"] in ("", "talk")
    assert not [line for line in process.lines if "Traceback" in line]
