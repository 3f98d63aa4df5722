"""`ssmprov pipe` while it runs: streaming, Ctrl-C, a reader who leaves, a terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_runner import Run, runner
from cluster import SCRIPT, Cluster, scripted_toml

PROGRAM = str(Path(sys.executable).with_name("ssmprov"))
SOME = [f" w{i}" for i in range(120)]
SLOW = {"replies": [{"after": "[SOME]:", "pieces": SOME}, *SCRIPT["replies"]], "token_delay_s": 0.02}
LONG = ("--in", "USER", "--out", "LONG", "--stream")


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A model that takes its time: 400 tokens (120 as SOME), 20 ms each."""
    home = tmp_path_factory.mktemp("slow")
    cluster = Cluster(home, scripted_toml(home, script=SLOW)).up()
    yield cluster
    cluster.close()


@pytest.fixture
def run(slow: Cluster) -> Run:
    return runner(slow)


def begin(cluster: Cluster, *words: str) -> subprocess.Popen[bytes]:
    """Start `ssmprov pipe` with a short text, and wait for the first piece of its reply."""
    child = subprocess.Popen(
        [PROGRAM, "pipe", *words],
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    child.stdin.write(b"go")
    child.stdin.close()
    return child


def first(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    return child.stdout.read1()  # type: ignore[attr-defined, no-any-return]


def rest(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes, int]:
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout, child.stderr:
        return child.stdout.read(), child.stderr.read(), child.wait(30)


def test_ctrl_c_ends_the_turn_and_keeps_what_was_read(slow: Cluster, run: Run) -> None:
    child = begin(slow, "--save", "cut", *LONG)
    shown = first(child)
    child.send_signal(signal.SIGINT)
    more, error, status = rest(child)
    reply = (shown + more).decode()
    assert (status, error.strip()) == (130, b"")
    assert reply.startswith("w0 w1")
    assert "w399" not in reply
    text = run("ckpt", "show", "cut", "--text").stdout
    assert text == f"(Turn 1) [USER]: go\n\n~~~(end)~~~\n\n(Turn 2) [LONG]: {reply}"


def test_a_second_ctrl_c_leaves_though_nobody_answers(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = make_cluster(scripted_toml(tmp_path, script=SLOW)).up()
    child = begin(cluster, *LONG)
    first(child)
    os.kill(cluster.processes["broker"].child.pid, signal.SIGSTOP)
    status = None
    # Two signals that come before the first one was seen are one, so there may be a third. It comes late enough: while
    # the interpreter ends, it would no longer be caught.
    for patience_s in (0.2, 10.0, 10.0, 10.0, 10.0):
        child.send_signal(signal.SIGINT)
        try:
            status = child.wait(patience_s)
            break
        except subprocess.TimeoutExpired:
            continue
    os.kill(cluster.processes["broker"].child.pid, signal.SIGCONT)
    _, error, _ = rest(child)
    assert (status, error.strip()) == (130, b"")


def test_a_reader_who_leaves_ends_the_turn_in_silence(slow: Cluster, run: Run) -> None:
    child = begin(slow, *LONG)
    first(child)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert (child.wait(30), child.stderr.read()) == (1, b"")
    child.stderr.close()
    assert run("status", "--json").returncode == 0


def test_what_is_streamed_comes_before_the_turn_has_ended(slow: Cluster) -> None:
    child = begin(slow, "--in", "USER", "--out", "SOME", "--stream")
    shown = first(child)
    assert shown.startswith(b"w0")
    assert len(shown) < len("".join(SOME)) / 2
    more, _, status = rest(child)
    assert status == 0
    assert (shown + more).decode().split() == "".join(SOME).split()


def test_on_a_terminal_the_reply_streams_and_the_bar_leaves_no_trace(slow: Cluster) -> None:
    master, terminal = pty.openpty()
    child = subprocess.Popen(
        [PROGRAM, "pipe", "--in", "USER", "--out", "ECHO"],
        env=slow.environment,
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    child.communicate(b"hi")
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert child.returncode == 0
    assert shown.endswith("as you say.\r\n\r\n~~~(end)~~~\r\n\r\n")


def test_a_worker_lost_in_mid_turn_is_told_in_one_line(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = make_cluster(scripted_toml(tmp_path, script=SLOW)).up()
    child = begin(cluster, *LONG)
    first(child)
    cluster.processes["talk/0"].kill()
    _, error, status = rest(child)
    assert status == 1
    assert error.startswith(b"ssmprov: ")
    assert error.count(b"\n") == 1
