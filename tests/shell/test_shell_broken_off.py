"""A turn whose record was cut off, by kill -9 or a broker that went away: the next PIPE takes it up."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml

from ssmprov.transcript import FENCE, turn, turns_of

BIN = Path(sys.executable).parent


def recorded(place: Path) -> str:
    path = place / ".transcript.txt"
    return path.read_text() if path.exists() else ""


def slow_pipe(cluster: Cluster, place: Path, *words: str) -> subprocess.Popen[bytes]:
    """A PIPE whose reply takes a while; it has begun to come."""
    process = subprocess.Popen(
        [str(BIN / "PIPE"), "--in", "USER", "--out", "X", "--stream", *words],
        env=cluster.environment,
        cwd=place,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"go on")
    process.stdin.close()
    assert process.stdout.read(5) == b"word "
    return process


@pytest.fixture
def slow(make_cluster: Callable[[str], Cluster]) -> Cluster:
    cluster = make_cluster("")
    script = {
        "replies": [{"after": "[X]:", "pieces": [" word"] * 60 + [FENCE]}, {"after": "", "pieces": ["ok"]}],
        "token_delay_s": 0.02,
    }
    cluster.config.write_text(scripted_toml(cluster.home, script=script))
    return cluster.up()


def own(place: Path) -> str:
    return (place / ".context").read_text().strip()


def pipe(cluster: Cluster, place: Path, text: str) -> subprocess.CompletedProcess[bytes]:
    words = [str(BIN / "PIPE"), "--in", "USER"]
    return subprocess.run(
        words, input=text.encode(), env=cluster.environment, cwd=place, capture_output=True, timeout=200, check=False
    )


@pytest.mark.parametrize("at_once", [True, False], ids=["while it still runs", "after it has ended"])
def test_kill_9_of_pipe_in_mid_turn_is_mended_by_the_next_one(slow: Cluster, tmp_path: Path, at_once: bool) -> None:
    process = slow_pipe(slow, tmp_path)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert recorded(tmp_path) == ""
    with slow.client() as client:
        if not at_once:
            client.turn("", context=own(tmp_path), create=True, max_tokens=1)  # queues behind it
        done = pipe(slow, tmp_path, "next")
        assert done.stdout == b"end)~~~\n\n"
        assert done.stderr == b"recording a turn that was interrupted\n"
        text = recorded(tmp_path)
        assert [t.number for t in turns_of(text)] == [1, 2, 3]
        assert [t.content for t in turns_of(text)] == ["go on", (" word" * 60).strip(), "next"]
        assert client.text(own(tmp_path)) == text
        assert (tmp_path / ".counter").read_text() == "3"
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        ".transcript.txt",
        ".context",
        ".counter",
        ".transcript.lock",
    }


def test_a_broker_that_goes_away_in_mid_turn_leaves_a_turn_to_be_taken_up(slow: Cluster, tmp_path: Path) -> None:
    process = slow_pipe(slow, tmp_path)
    slow.processes["broker"].kill()
    status = None
    while status is None:  # nobody answers the first Ctrl-C; two that come together are one
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = process.wait(0.5)
    assert status in (130, -signal.SIGINT)
    assert process.stdout is not None
    process.stdout.close()
    assert recorded(tmp_path) == ""
    assert pipe(slow, tmp_path, "too early").returncode == 3
    slow.broker()
    slow.processes["talk/0"].expect("serves")
    assert pipe(slow, tmp_path, "next").returncode == 0
    with slow.client() as client:
        assert client.text(own(tmp_path)) == recorded(tmp_path)
    assert [t.content for t in turns_of(recorded(tmp_path))][::2] == ["go on", "next"]
    assert [t.number for t in turns_of(recorded(tmp_path))] == [1, 2, 3]


@pytest.mark.parametrize("left", ["", "{}", "[" * 9000, '{"id": "zz"}'])
def test_a_note_that_is_none_is_dropped(talk: Cluster, tmp_path: Path, left: str) -> None:
    (tmp_path / ".transcript.asked").write_text(left)
    done = pipe(talk, tmp_path, "x")
    assert (done.returncode, done.stderr) == (0, b"")
    assert recorded(tmp_path) == turn(1, "USER", "x")
    assert not (tmp_path / ".transcript.asked").exists()


def asked(tmp_path: Path, **said: object) -> None:
    note = {"id": "1" * 32, "at": time.time(), "prompt": "x", "before": "x", "counter": 3} | said
    (tmp_path / ".transcript.asked").write_text(json.dumps(note))


def test_a_turn_that_was_broken_off_long_ago_is_told_and_not_sent_again(talk: Cluster, tmp_path: Path) -> None:
    asked(tmp_path, at=1e9, arguments={"save": "live"})
    done = pipe(talk, tmp_path, "x")
    assert (done.returncode, b"ckpt show live --text" in done.stderr) == (0, True)
    assert recorded(tmp_path) == turn(1, "USER", "x")


def test_a_turn_that_had_no_effect_is_forgotten(talk: Cluster, tmp_path: Path) -> None:
    asked(tmp_path, arguments={"save": "kept", "context": "nowhere", "of_a_newer_program": 1})
    done = pipe(talk, tmp_path, "y")
    assert (done.returncode, b"the interrupted turn had no effect" in done.stderr) == (0, True)
    assert recorded(tmp_path) == turn(1, "USER", "y")


def test_a_turn_to_a_port_does_not_bury_one_that_was_broken_off(slow: Cluster, tmp_path: Path) -> None:
    process = slow_pipe(slow, tmp_path)
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    done = subprocess.run(
        [str(BIN / "PIPE"), "--in", "USER", "--port", "1"],  # nobody serves that one
        input=b"next",
        env=slow.environment,
        cwd=tmp_path,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 3
    assert [t.content for t in turns_of(recorded(tmp_path))] == ["go on", (" word" * 60).strip()]
    with slow.client() as client:
        assert client.text(own(tmp_path)) == recorded(tmp_path)
