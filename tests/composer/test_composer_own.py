"""One transcript, one context: the window and the shell tools share it, and neither surprises the other."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import run_in
from cluster import Cluster
from pytestqt.qtbot import QtBot
from stage import Stage, agrees, context_name, context_of, offer, opened, own, own_text

from clients import Client
from composer.session import Session
from composer.session import save as save_session
from ssmprov.transcript import turn

fresh = itertools.count(1)


@pytest.fixture
def stage(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> Iterator[Stage]:
    with opened(qtbot, talk.endpoint, tmp_path, context=f"own{next(fresh)}") as found:
        yield found.ready()


def shell(cluster: Cluster, directory: Path, *words: str, text: str = "") -> str:
    """Run a program in a directory. Returns what it writes."""
    done = run_in(cluster, directory, *words, text=text)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(stage: Stage) -> None:
    """Wait until the window shows what another program has written."""
    stage.until(lambda: stage.window.book.text == stage.transcript)
    stage.until(lambda: context_name(stage) == own(stage.directory).name)
    stage.idle()


def command(stage: Stage, text: str, answer: str) -> None:
    stage.window.compose.prompt.set_text(text)
    stage.press("send")
    stage.until(lambda: answer in stage.notices)
    stage.idle()


def test_window_and_pipe_take_turns_with_one_context(stage: Stage, talk: Cluster, tmp_path: Path) -> None:
    mine = context_name(stage)
    for round_ in range(2):
        stage.send(f"from the window {round_}", "full")
        assert own_text(talk, tmp_path) == stage.transcript
        shell(talk, tmp_path, "PIPE", "--in", "USER", "--out", "ECHO", text=f"from the shell {round_}")
        assert own_text(talk, tmp_path) == stage.transcript
        assert stage.transcript.count("from the") == 2 * round_ + 2
        shown(stage)
    assert own(tmp_path).name == mine
    assert agrees(stage, talk)


def test_nothing_is_written_before_the_first_turn(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with Client(talk.endpoint) as client, opened(qtbot, talk.endpoint, tmp_path) as stage:
        before = [row.name for row in client.ls(model="talk", limit=1000).rows]
        stage.ready()
        stage.idle()
        name = context_name(stage)
        assert name.startswith("test_nothing_is_written")
        assert [
            path.name for path in tmp_path.iterdir() if "transcript.txt" in path.name or "context" in path.name
        ] == []
        assert [row.name for row in client.ls(model="talk", limit=1000).rows] == before
        stage.send("one", "half")
        assert str(own(tmp_path)) == f"talk:{name}"


@pytest.mark.parametrize("former", ["live", "story"])
def test_a_directory_without_a_dot_file_goes_on_with_what_it_used(
    qtbot: QtBot, talk: Cluster, tmp_path: Path, former: str
) -> None:
    """All directories shared `live`, so it is copied; a context that the last session had is taken as it is."""
    text = turn(1, "USER", f"as before with {former}")
    (tmp_path / ".transcript.txt").write_text(text)
    save_session(tmp_path, Session(model="talk", context=former))
    with Client(talk.endpoint) as client:
        if client.ls(former, model="talk").rows:
            client.rm([former], model="talk")
        client.turn(text, model="talk", save=former, max_tokens=0)
        with opened(qtbot, talk.endpoint, tmp_path, model="") as stage:
            stage.ready()
            stage.idle()
            assert "differ" not in stage.notices
            assert stage.window.conductor.scene is not None
            assert stage.window.conductor.scene.text == text.encode()
            assert not (tmp_path / ".context").exists()
            stage.send("and on", "half")
            assert own_text(talk, tmp_path) == stage.transcript == text + turn(2, "USER", "and on")
            assert (own(tmp_path).name == former) == (former != "live")
            assert client.text("live" if former == "live" else own(tmp_path).name, model="talk").startswith(text)
            assert former != "live" or client.text("live", model="talk") == text
            stage.press("undo")
            stage.until(lambda: stage.transcript == text)
            stage.idle()
            assert agrees(stage, talk)


def test_a_transcript_that_no_context_has_read_is_asked_about(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    text = turn(1, "USER", "written by hand")
    (tmp_path / ".transcript.txt").write_text(text)
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.until(lambda: "has not read the transcript" in stage.notices)
        stage.type("two")
        stage.press("half")
        stage.until(lambda: not stage.window.conductor.busy and stage.window.compose.prompt.text == "two")
        assert (stage.transcript, (tmp_path / ".context").exists()) == (text, False)
        offer(stage, "Read the transcript anew")
        assert own_text(talk, tmp_path) == stage.transcript == text


@pytest.mark.parametrize("choice", ["Read the transcript anew", "Go back to where they agree", "Show what the context"])
def test_a_change_in_the_middle_is_noticed_and_can_be_put_right(stage: Stage, talk: Cluster, choice: str) -> None:
    for text in ("one", "two", "three"):
        stage.send(text, "half")
    whole = stage.transcript
    changed = whole.replace("two", "TWO")
    (stage.directory / ".transcript.txt").write_text(changed)
    stage.until(lambda: "differ from line 5 on" in stage.notices)
    stage.type("four")
    stage.press("half")
    stage.until(lambda: not stage.window.conductor.busy and stage.window.compose.prompt.text == "four")
    assert (stage.transcript, context_of(talk, context_name(stage))) == (changed, whole), "nothing was sent"
    texts = {"Read": changed, "Go b": turn(1, "USER", "one"), "Show": whole}
    offer(stage, choice + " has read" * choice.startswith("Show"))
    assert stage.transcript == texts[choice[:4]]
    assert agrees(stage, talk)
    assert stage.transcript == changed or changed in [
        path.read_text() for path in stage.directory.glob(".transcript.*.txt")
    ]
    stage.press("undo")
    stage.until(lambda: stage.transcript == changed)
    stage.idle()


def test_a_context_that_is_loaded_brings_its_transcript_and_can_be_undone(stage: Stage, talk: Cluster) -> None:
    mine = context_name(stage)
    command(stage, f"/save {mine}-empty", "Saved the context")
    assert context_of(talk, f"{mine}-empty") == ""
    stage.send("one", "half")
    command(stage, f"/save {mine}-kept", "Saved the context")
    stage.send("two", "half")
    whole = stage.transcript
    for name, text in (("kept", turn(1, "USER", "one")), ("empty", "")):
        command(stage, f"/load {mine}-{name}", f"Loaded the context {mine}-{name}")
        assert stage.transcript == text
        assert own(stage.directory).name == mine
        assert agrees(stage, talk)
    assert whole in [path.read_text() for path in stage.directory.glob(".transcript.*.txt")]
    for _ in range(2):
        before = stage.transcript
        stage.press("undo")
        stage.until(lambda before=before: stage.transcript != before)
        stage.idle()
    assert stage.transcript == whole
    assert agrees(stage, talk)


def test_the_window_follows_the_shell_to_another_context(stage: Stage, talk: Cluster, tmp_path: Path) -> None:
    stage.send("one", "half")
    former = own(tmp_path)
    shell(talk, tmp_path, "ssmprov", "transcript", "new")
    shown(stage)
    assert own(tmp_path) != former
    assert (stage.transcript, f"now continues the context {own(tmp_path)}" in stage.notices) == ("", True)
    stage.send("afresh", "half")
    assert agrees(stage, talk)
    shell(talk, tmp_path, "PIPE", text=f"/load {former.name}")
    shown(stage)
    stage.send("on", "half")
    assert stage.transcript == turn(1, "USER", "one") + turn(2, "USER", "on")
    assert agrees(stage, talk)


KILLED = """
import os, pathlib, signal, sys
from clients import Client
from transcripts import branches, own, record
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
owner, name = sys.argv[1].split(".")
setattr(branches.Branches if owner == "Branches" else record.Writer, name, die)
where = record.Record(pathlib.Path(sys.argv[3]))
with Client(sys.argv[2]) as client, where.locked() as writer:
    if sys.argv[4] == "load":
        own.load(writer, where, client, sys.argv[5])
    else:
        own.restore(writer, where, client, own.Own("talk", sys.argv[5]))
"""


@pytest.mark.parametrize("how", ["load", "choose"])
@pytest.mark.parametrize(
    "at", ["Branches._move", "Writer.carry_out_move", "Writer.set_counter", "Writer.set_context", "Writer.moved"]
)
def test_a_move_that_is_killed_between_its_parts_is_finished_or_never_began(
    qtbot: QtBot, talk: Cluster, tmp_path: Path, at: str, how: str
) -> None:
    number = next(fresh)
    with Client(talk.endpoint) as client:
        client.turn(turn(1, "X", "far away"), model="talk", save=f"far{number}", max_tokens=0)
    with opened(qtbot, talk.endpoint, tmp_path, context=f"near{number}") as stage:
        stage.ready()
        stage.send("near", "half")
        near = stage.transcript
    far = turn(1, "X", "far away")
    child = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, at, talk.endpoint, str(tmp_path), how, f"far{number}"],
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert child.returncode in (-signal.SIGKILL, 0 if (at, how) == ("Branches._move", "choose") else -signal.SIGKILL)
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.ready()
        shown(stage)
        assert stage.transcript in (near, far)
        assert (stage.transcript == near) == (at == "Branches._move" and how == "load")
        assert own(tmp_path).name == (f"far{number}" if how == "choose" else f"near{number}")
        assert agrees(stage, talk)
        assert near in [path.read_text() for path in tmp_path.glob(".transcript*.txt")]
        before = stage.transcript
        stage.send("on", "half")
        assert stage.transcript.startswith(before)
        assert agrees(stage, talk)


def test_a_context_named_at_the_start_is_opened_and_nothing_moves_by_itself(
    qtbot: QtBot, talk: Cluster, tmp_path: Path
) -> None:
    number = next(fresh)
    with opened(qtbot, talk.endpoint, tmp_path, context=f"first{number}") as stage:
        stage.ready()
        stage.send("one", "half")
        mine = stage.transcript
    with Client(talk.endpoint) as client:
        client.turn(turn(1, "X", "other"), model="talk", save=f"second{number}", max_tokens=0)
    with opened(qtbot, talk.endpoint, tmp_path, context=f"second{number}") as stage:
        stage.until(lambda: "differ from line 1 on" in stage.notices)
        assert (own(tmp_path).name, stage.transcript) == (f"first{number}", mine)
        offer(stage, "Show what the context has read")
        assert (own(tmp_path).name, stage.transcript) == (f"second{number}", turn(1, "X", "other"))
        assert agrees(stage, talk)
    assert mine in [path.read_text() for path in tmp_path.glob(".transcript.*.txt")]


def test_a_dot_file_that_names_no_context_is_told_and_nothing_is_sent(
    qtbot: QtBot, talk: Cluster, tmp_path: Path
) -> None:
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.ready()
        stage.idle()
        (tmp_path / ".context").write_text("not a context")
        stage.until(lambda: "does not name a context" in stage.notices)
        stage.type("one")
        stage.press("half")
        stage.until(lambda: not stage.window.conductor.busy and stage.window.compose.prompt.text == "one")
        stage.idle()
        assert stage.transcript == ""
        (tmp_path / ".context").unlink()
        stage.until(lambda: "does not name a context" not in stage.notices)
        stage.press("half")
        stage.until(lambda: stage.transcript == turn(1, "USER", "one"))
        stage.idle()
        assert agrees(stage, talk)
