"""Broken peers and files: a message that says what to do, a window that goes on, a transcript that is whole."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml
from pytestqt.qtbot import QtBot
from stage import Stage, agrees, ask_slowly, context_name, context_of, offer, opened, own_text, slow_cluster

from ssmprov import durable
from ssmprov.transcript import FENCE, turn


def refused(stage: Stage, text: str) -> None:
    """A turn that is not sent leaves everything as it is, its text in the prompt, too."""
    before = stage.transcript
    stage.window.notices.clear()
    stage.type(text)
    stage.press("half")
    stage.until(lambda: stage.notices != "" and not stage.window.conductor.busy)
    stage.idle()
    assert stage.transcript == before
    assert stage.window.compose.prompt.text == text


MakeCluster = Callable[[str], Cluster]


def test_without_a_broker_the_text_comes_back_and_one_can_be_started(
    qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first start: no broker, an offer, and then a turn with what it serves."""
    home = tmp_path / "home"
    cluster = make_cluster(scripted_toml(home))
    monkeypatch.setenv("SSMPROV_HOME", str(cluster.home))
    with opened(qtbot, cluster.endpoint, tmp_path, model="", home=cluster.home, timeout_s=1.5) as stage:
        stage.until(lambda: "no broker answers" in stage.notices.lower())
        stage.type("hello")
        stage.press("half")
        stage.until(lambda: stage.window.compose.prompt.text == "hello" and not stage.window.conductor.busy)
        assert stage.transcript == ""
        (offer,) = [a for n in stage.window.notices.notices for a in n.actions if "Start" in a[0]][:1]
        offer[1]()
        stage.until(lambda: stage.window.workers.model == "talk")
        stage.idle()
        assert "no broker answers" not in stage.notices.lower()
        stage.press("half")
        stage.until(lambda: stage.transcript == turn(1, "USER", "hello"))
        stage.idle()


def test_a_worker_lost_in_mid_turn_leaves_the_transcript_and_brings_the_text_back(
    qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        stage.send("first", "half")
        before = stage.transcript
        ask_slowly(stage)
        cluster.processes["talk/0"].child.send_signal(signal.SIGKILL)
        stage.until(lambda: "lost" in stage.notices.lower() or "died" in stage.notices.lower())
        cluster.worker("talk")
        stage.until(lambda: stage.window.compose.prompt.text == "tell")
        stage.idle()
        assert stage.transcript == before == own_text(cluster, tmp_path)
        stage.window.compose.prompt.set_text("")
        stage.send("again", "half")
        assert stage.transcript == before + turn(2, "USER", "again")


def test_a_window_killed_in_mid_turn_loses_nothing(qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path) -> None:
    """Closed for good while the turn runs: the broker finishes it, and the next window records it."""
    script = {"replies": [{"after": "", "pieces": [f" w{i}" for i in range(60)]}], "token_delay_s": 0.01}
    cluster = make_cluster(scripted_toml(tmp_path / "slow", script=script)).up()
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        stage.type("tell")
        stage.press("full")
        stage.until(lambda: " w3" in stage.window.book.shown)
        stage.window._leave()  # as a crash would: nobody waits for the end
        assert stage.transcript == ""
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.until(lambda: " w59" in stage.transcript)
        stage.idle()
        assert stage.transcript == own_text(cluster, tmp_path)


def test_closing_the_window_ends_the_turn_and_keeps_it(qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path) -> None:
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        ask_slowly(stage)
        stage.window.close()
        stage.until(lambda: not stage.window.isVisible())
        assert " w3" in stage.transcript
        assert stage.transcript.endswith(FENCE)
        assert stage.transcript == own_text(cluster, tmp_path)


def test_a_context_that_another_program_moved_is_told_and_not_moved_back(
    qtbot: QtBot, talk: Cluster, tmp_path: Path
) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="contested") as stage:
        stage.ready()
        stage.send("one", "half")
        stage.send("two", "half")
        client = stage.window.link.client
        client.turn("elsewhere", model="talk", context="contested", save="contested")
        before = stage.transcript
        stage.press("undo")
        stage.until(lambda: "differ from line" in stage.notices)
        stage.idle()
        assert stage.transcript == before
        assert context_of(talk, "contested").endswith("elsewherehello!")
        offer(stage, "Show what the context has read")
        assert agrees(stage, talk)
        assert stage.transcript == before + "elsewherehello!"


def test_a_context_refused_is_told_and_the_window_goes_on(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="refused") as stage:
        stage.ready()
        stage.window.compose.bang.setText("!no-such-context")
        stage.type("x")
        stage.press("full")
        stage.until(lambda: "no-such-context" in stage.notices)
        stage.idle()
        assert stage.transcript == ""
        stage.window.compose.bang.setText("")
        stage.window.compose.prompt.set_text("")
        stage.send("fine", "half")
        assert stage.transcript == turn(1, "USER", "fine")


def test_a_deleted_transcript_is_told_and_comes_back(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="deleted") as stage:
        stage.ready()
        stage.send("one", "half")
        whole = stage.transcript
        (tmp_path / ".transcript.txt").unlink()
        stage.until(lambda: "The transcript is empty" in stage.notices)
        assert stage.window.book.shown == ""
        refused(stage, "two")
        offer(stage, "Show what the context has read")
        assert stage.transcript == whole
        stage.press("half")
        stage.until(lambda: stage.transcript == whole + turn(2, "USER", "two"))
        stage.idle()
        assert agrees(stage, talk)


def test_a_transcript_replaced_under_it_is_shown_and_read_anew(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="replaced") as stage:
        stage.ready()
        stage.send("one", "half")
        other = turn(8, "USER", "from an editor")
        durable.replace(tmp_path / ".transcript.txt", other.encode())
        stage.until(lambda: stage.window.book.text == other)
        stage.until(lambda: "differ from line 1 on" in stage.notices)
        refused(stage, "two")
        offer(stage, "Read the transcript anew")
        assert "differ" not in stage.notices
        assert stage.transcript == other
        stage.press("half")
        stage.until(lambda: stage.transcript == other + turn(9, "USER", "two"))
        stage.idle()
        assert agrees(stage, talk)


def test_a_transcript_that_is_no_utf8_is_shown_and_kept_to_the_byte(
    qtbot: QtBot, talk: Cluster, tmp_path: Path
) -> None:
    data = turn(1, "USER", "x").encode() + b"\xff\xfe bytes\n\n" + turn(2, "USER", "y").encode()
    (tmp_path / ".transcript.txt").write_bytes(data)
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.ready()
        stage.until(lambda: "UTF-8" in stage.notices)
        refused(stage, "two")
        assert (tmp_path / ".transcript.txt").read_bytes() == data
        offer(stage, "Start a new transcript")
        kept = tmp_path / f".transcript.{context_name(stage)}.txt"
        assert kept.read_bytes() == data
        stage.press("half")
        stage.until(lambda: stage.transcript == turn(1, "USER", "two"))
        stage.idle()
        assert agrees(stage, talk)


def test_a_full_disk_is_told_and_nothing_is_half_done(
    qtbot: QtBot, talk: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="full") as stage:
        stage.ready()
        stage.send("one", "half")
        before = stage.transcript

        def full(path: Path, data: bytes) -> None:
            raise OSError(28, "No space left on device", str(path))

        with monkeypatch.context() as patch:
            patch.setattr(durable, "replace", full)
            stage.type("two")
            stage.press("half")
            stage.until(lambda: "disk is full" in stage.notices)
            stage.until(lambda: not stage.window.conductor.busy)
            assert stage.window.compose.prompt.text == "two"
        assert stage.transcript == before == context_of(talk, "full")
        stage.press("half")
        stage.until(lambda: stage.transcript == before + turn(2, "USER", "two"))
        stage.idle()


def test_a_slot_that_raises_is_told_and_the_window_goes_on(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, talk.endpoint, tmp_path, context="raises", hook=True) as stage:
        stage.ready()

        def broken(_text: str) -> None:
            raise ValueError("a fault of ours")

        stage.window.conductor.hint.connect(broken)
        stage.window.conductor.hint.emit("anything")
        stage.until(lambda: "Something went wrong in the window (ValueError)" in stage.notices)
        stage.window.conductor.hint.disconnect(broken)
        stage.send("still here", "half")
        assert stage.transcript == turn(1, "USER", "still here")
