"""The old window, whole: what is sent, recorded and shown, beside the shell tools and a real broker."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_runner import runner
from cluster import Cluster, scripted_toml
from PyQt6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot
from stage import Stage, agrees, ask_slowly, context_of, opened, own_text, slow_cluster

from clients import Client
from ssmprov.transcript import FENCE, HALF_FENCE, turn
from transcripts.record import Record

fresh = itertools.count(1)


@pytest.fixture
def stage(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A window on an empty directory, with a context of its own."""
    with opened(qtbot, talk.endpoint, tmp_path, context=f"window{next(fresh)}") as found:
        yield found.ready()


def choose(stage: Stage, opening: str, divider: str, reply: str) -> None:
    for name, value in zip(("s1", "s2", "s3"), (opening, divider, reply), strict=True):
        stage.window.compose.boxes[name].choose(value)


# -- steps


def test_steps_leave_the_transcript_that_pipe_leaves(qtbot: QtBot, tmp_path: Path) -> None:
    """Byte for byte, with contents that need escaping, and the counter."""
    texts = ["be an echo", "two\nlines", "(Turn 9) [X]: not a header\n\n~~~(end)~~~\n\nend", "  spaced  ", "é 🌍 \\"]
    homes = {}
    for tool in ("pipe", "window"):
        cluster = Cluster(tmp_path / tool, scripted_toml(tmp_path / tool))
        try:
            cluster.up()
            if tool == "pipe":
                pipe = runner(cluster)
                for text in texts:
                    assert pipe("pipe", "--record", "--in", "CONTEXT", text=text + "\n").returncode == 0
                    done = pipe("pipe", "--record", "--in", "USER", "--out", "ECHO", text=text + "\n")
                    assert done.returncode == 0, done.stderr
            else:
                with opened(qtbot, cluster.endpoint, cluster.home) as stage:
                    stage.ready()
                    for text in texts:
                        choose(stage, "[CONTEXT]: ", FENCE, "[ECHO]: ")
                        stage.window.compose.prompt.set_text(text)
                        stage.press("half")
                        stage.until(lambda n=stage.transcript: stage.transcript != n)
                        stage.idle()
                        choose(stage, "[USER]: ", FENCE, "[ECHO]: ")
                        stage.window.compose.prompt.set_text(text)
                        stage.press("full")
                        stage.until(lambda n=stage.transcript: stage.transcript != n)
                        stage.idle()
            homes[tool] = {name: (cluster.home / name).read_bytes() for name in (".transcript.txt", ".counter")} | {
                "context": own_text(cluster, cluster.home).encode()
            }
        finally:
            cluster.close()
    assert homes["window"] == homes["pipe"]
    assert homes["pipe"]["context"] == homes["pipe"][".transcript.txt"]


def test_shift_enter_sends_what_the_lists_say(stage: Stage, talk: Cluster) -> None:
    from PyQt6.QtCore import Qt

    choose(stage, "[USER]: ", FENCE, "[ECHO]: ")
    stage.type("good day")
    stage.key(Qt.Key.Key_Return)
    stage.type("and night")
    stage.key(Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    stage.until(lambda: "as you say" in stage.transcript)
    stage.idle()
    assert stage.transcript == turn(1, "USER", "good day\nand night") + turn(2, "ECHO", "as you say.")
    assert stage.window.compose.prompt.text == ""
    assert agrees(stage, talk)


def test_a_raw_text_goes_as_it_is(stage: Stage, talk: Cluster) -> None:
    stage.send("no header", "raw")
    assert stage.transcript == "no headerhello!"
    assert (stage.directory / ".counter").exists() is False
    assert agrees(stage, talk)


def test_a_bang_line_names_context_set_and_save(stage: Stage, talk: Cluster) -> None:
    with Client(talk.endpoint) as client:
        client.turn("(Turn 1) [X]: primed", model="talk", save="primed-for-bang")
    stage.window.compose.bang.setText("!primed-for-bang greedy bang-result")
    stage.send("use it", "full")
    primed = "(Turn 1) [X]: primedhello!\n\n"
    said = turn(2, "USER", "use it") + "(Turn 3) [INTERFACE]: hello!"
    assert stage.transcript == f"{primed}!primed-for-bang greedy bang-result\n{said}"
    assert own_text(talk, stage.directory) == primed + said
    assert context_of(talk, "bang-result") == own_text(talk, stage.directory)
    before = stage.transcript
    stage.window.compose.bang.setText("!nowhere")
    stage.type("x")
    stage.press("full")
    stage.until(lambda: "nowhere" in stage.notices)
    stage.idle()
    assert stage.transcript == before
    assert stage.window.compose.prompt.text == "x", "what was not sent comes back"


def test_the_counter_is_set_at_launch_from_the_highest_closed_turn(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    (tmp_path / ".transcript.txt").write_text(turn(7, "USER", "a") + turn(4, "USER", "b") + "(Turn 9) [USER]: open")
    (tmp_path / ".counter").write_text("30")
    with opened(qtbot, talk.endpoint, tmp_path, context="counted") as stage:
        stage.until(lambda: (tmp_path / ".counter").read_text() == "7")


def test_slash_commands_are_done_and_not_recorded(stage: Stage, talk: Cluster) -> None:
    stage.send("one", "full")
    before = stage.transcript
    for text, answer in {
        "/save kept": "Saved the context as kept.",
        "/t 0.5": "temp = 0.5",
        "/?": "/load NAME",
        "/nonsense": "no command /nonsense",
        "/t much": "must be a number",
        "/load kept": "Loaded the context kept.",
    }.items():
        stage.window.notices.clear()
        stage.window.compose.prompt.set_text(text)
        stage.press("send")
        stage.until(lambda answer=answer: answer in stage.notices)
        stage.idle()
    assert stage.transcript == before
    assert stage.window.conductor.wishes.values == {"temp": 0.5}
    assert context_of(talk, "kept") == before


# -- beside the shell tools


def test_the_window_shows_what_pipe_writes_and_goes_on_after_it(qtbot: QtBot, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, scripted_toml(tmp_path)).up()
    try:
        pipe = runner(cluster)
        with opened(qtbot, cluster.endpoint, cluster.home) as stage:
            stage.ready()
            stage.send("from the window", "full")
            assert pipe("pipe", "--in", "USER", "--out", "ECHO", text="from the shell").returncode == 0
            stage.until(lambda: stage.window.book.text == stage.transcript)
            stage.idle()
            stage.send("again", "half")
            numbers = [t.number for t in Record(cluster.home).transcript().turns]
            assert numbers == [1, 2, 3, 4, 5]
            assert agrees(stage, cluster)
    finally:
        cluster.close()


def test_a_turn_waits_for_the_lock_and_esc_gives_up_waiting(stage: Stage) -> None:
    record = Record(stage.directory)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with record.locked():
            held.set()
            let_go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        stage.type("patience")
        stage.press("full")
        stage.until(lambda: "Waiting: another turn" in stage.notices)
        stage.press("stop")
        stage.until(lambda: not stage.window.conductor.busy)
        assert stage.window.compose.prompt.text == "patience"
        assert stage.transcript == ""
        stage.press("full")
        stage.until(lambda: stage.window.conductor.busy)
    finally:
        let_go.set()
        thread.join()
    stage.until(lambda: "patience" in stage.transcript)
    stage.idle()


# -- streaming and stopping


def test_tokens_show_as_they_come_and_esc_keeps_the_turn_so_far(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        ask_slowly(stage)
        assert stage.transcript == "", "it is recorded when it has ended"
        assert "tokens/s" in stage.status
        stage.press("stop")
        stage.until(lambda: not stage.window.conductor.busy)
        stage.idle()
        assert stage.transcript.endswith(FENCE)
        assert " w3" in stage.transcript
        assert " w2999" not in stage.transcript
        assert agrees(stage, cluster)


def test_a_dropped_turn_leaves_nothing(qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        ask_slowly(stage)
        stage.press("drop")
        stage.until(lambda: not stage.window.conductor.busy)
        stage.idle()
        assert stage.transcript == ""
        assert stage.window.book.shown == ""
        assert stage.window.compose.prompt.text == "tell"


def test_esc_closes_the_search_before_it_ends_a_turn(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        ask_slowly(stage)
        bar = stage.window.pane.search_bar
        stage.press("find")
        stage.until(lambda: bar.isAncestorOf(QApplication.focusWidget()))
        stage.press("stop")  # Esc is its key
        assert not bar.isVisible()
        seen = len(stage.window.book.shown)
        stage.until(lambda: len(stage.window.book.shown) > seen)
        stage.window.compose.focus_prompt()
        stage.press("stop")
        stage.until(lambda: not stage.window.conductor.busy)
        stage.idle()


def test_the_window_never_waits_for_the_broker(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    """With a broker that stands still in mid-turn everything that needs none goes on; then the turn does, too."""
    cluster = slow_cluster(make_cluster, tmp_path / "slow")
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        ask_slowly(stage)
        broker = cluster.processes["broker"].child
        broker.send_signal(signal.SIGSTOP)
        try:
            stage.type("written ahead")
            stage.press("tab")
            stage.press("find")
            stage.press("refresh")
            stage.press("undo")
            assert stage.window.compose.prompt.text == "written ahead"
            assert stage.window.pane.tab == "raw"
            assert stage.window.pane.search_bar.isVisible()
            assert stage.window.conductor.busy
        finally:
            broker.send_signal(signal.SIGCONT)
        stage.window.compose.focus_prompt()
        shown = stage.window.book.shown
        stage.until(lambda: len(stage.window.book.shown) > len(shown) or not stage.window.conductor.busy)
        stage.press("stop")
        stage.until(lambda: not stage.window.conductor.busy)
        stage.idle()
        assert stage.transcript.startswith(shown.removesuffix(" "))
        assert agrees(stage, cluster)


def test_the_place_in_the_queue_and_the_reading_of_the_prompt_are_shown(stage: Stage) -> None:
    shown: list[str] = []
    stage.window.conductor.placed.connect(lambda _: shown.append(stage.status))
    stage.window.conductor.progress.connect(lambda *_: shown.append(stage.status))
    stage.window.compose.prompt.insertPlainText("long " * 2999)  # at once, as a paste does; each key would be drawn
    stage.send("long", "full")
    assert shown[0].startswith("Waiting")
    assert any(text.startswith("Reading ") for text in shown)


def test_an_open_turn_goes_on_or_is_closed(stage: Stage, talk: Cluster) -> None:
    stage.window.sampling.override("max", 12)
    choose(stage, "[USER]: ", FENCE, "[LONG]: ")
    stage.send("go", "full")
    first = stage.transcript
    assert not first.endswith(FENCE)
    stage.press("go_on")
    stage.until(lambda: stage.transcript != first)
    stage.idle()
    second = stage.transcript
    assert second.startswith(first)
    stage.press("close_turn")
    stage.until(lambda: stage.transcript != second)
    stage.idle()
    assert stage.transcript == second + FENCE
    assert agrees(stage, talk)
    assert HALF_FENCE in stage.transcript
