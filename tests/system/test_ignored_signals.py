"""Signals that a program was started to ignore (`nohup`, a job in the background) stay ignored."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, Process, command_line, scripted_toml

MAIN = "import sys; from ssmprov.main import main; sys.exit(main())"
WITHOUT = {signal.SIGHUP: "HUP", signal.SIGINT: "INT", signal.SIGTERM: "TERM"}
HANGUP = {signal.SIGHUP}
BACKGROUND = {signal.SIGHUP, signal.SIGINT}
ALL = set(WITHOUT)


def begin(cluster: Cluster, ignored: set[signal.Signals], *words: str) -> Process:
    """Start `ssmprov WORDS` as a shell does that ignores these signals."""
    trap = f'trap "" {" ".join(WITHOUT[number] for number in ignored)}; exec "$@"'
    return cluster.start(words[0], "sh", "-c", trap, "sh", *command_line(["-c", MAIN, *words]))


def masks(pid: int) -> tuple[set[signal.Signals], set[signal.Signals]]:
    """Which of the three signals a process ignores, and which it handles."""
    return masks_of(Path(f"/proc/{pid}/status").read_text())


def masks_of(status: str) -> tuple[set[signal.Signals], set[signal.Signals]]:
    lines = dict(line.split(":", 1) for line in status.splitlines())
    found = [{number for number in WITHOUT if int(lines[key], 16) >> (number - 1) & 1} for key in ("SigIgn", "SigCgt")]
    return found[0], found[1]


@pytest.mark.parametrize("ignored", [HANGUP, BACKGROUND], ids=["nohup", "nohup in the background"])
def test_up_keeps_serving_and_ends_when_it_is_told_to(
    make_cluster: Callable[[str], Cluster], tmp_path: Path, ignored: set[signal.Signals]
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "script") + '\n[[bridge]]\nport = 0\nmodel = "talk"\n')
    del cluster.environment["SSMPROV_SUPERVISED"]
    up = begin(cluster, ignored, "up")
    up.expect(r" up \| serving ")
    assert masks(up.child.pid) == (ignored, ALL - ignored)
    for number in ignored:
        up.child.send_signal(number)
    assert cluster.client().models()[0].name == "talk"
    assert up.stop() == 0


def test_children_obey_a_supervisor_that_ignores_what_it_sends_them(
    make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "script") + '\n[[bridge]]\nport = 0\nmodel = "talk"\n')
    del cluster.environment["SSMPROV_SUPERVISED"]
    up = begin(cluster, {signal.SIGTERM}, "up")
    up.expect(r" up \| serving ")
    assert masks(up.child.pid)[0] == {signal.SIGTERM}
    up.child.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert not [line for line in up.lines if "kill" in line], "nothing had to be killed"


@pytest.mark.parametrize(
    ("words", "ready"),
    [
        (("broker",), ""),
        (("worker", "--model", "talk"), r" serves "),
        (("bridge", "--port", "0", "--model", "talk"), r" listens on "),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_services_leave_ignored_signals_alone(
    make_cluster: Callable[[str], Cluster], tmp_path: Path, words: tuple[str, ...], ready: str
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "script"))
    if words[0] != "broker":
        cluster.broker()
    del cluster.environment["SSMPROV_SUPERVISED"]
    process = begin(cluster, BACKGROUND, *words)
    if ready:
        process.expect(ready)
    else:
        cluster.client().status()
    assert masks(process.child.pid) == (BACKGROUND, {signal.SIGTERM})
    assert process.stop() == 0


@pytest.mark.parametrize("ignored", [{signal.SIGINT}, {signal.SIGINT, signal.SIGTERM}])
def test_a_training_run_leaves_ignored_signals_alone(tmp_path: Path, ignored: set[signal.Signals]) -> None:
    pytest.importorskip("torch")
    program = (
        "import os; from training.session import stopping\n"
        "with stopping(): os.write(1, open('/proc/self/status', 'rb').read())"
    )
    trap = f'trap "" {" ".join(WITHOUT[number] for number in ignored)}; exec "$@"'
    done = subprocess.run(
        ["sh", "-c", trap, "sh", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ,
    )
    assert masks_of(done.stdout) == (ignored, {signal.SIGINT, signal.SIGTERM} - ignored)
