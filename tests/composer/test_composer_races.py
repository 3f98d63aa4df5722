"""What others do at the same time, and what is chosen meanwhile: nothing is mixed up, and no text is lost."""

from __future__ import annotations

import itertools
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml
from PyQt6.QtWidgets import QInputDialog
from pytestqt.qtbot import QtBot
from stage import Stage, agrees, choose, context_name, context_of, opened, own, own_text, two_steps

from clients import Client
from composer.writing.draft import Draft
from ssmprov.transcript import FENCE, Turn, turn
from transcripts.own import start_new
from transcripts.record import ASKED, Asked, Record, Writer

fresh = itertools.count(1)


@pytest.fixture
def stage(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A window with two full steps: turns 1 to 4."""
    with opened(qtbot, talk.endpoint, tmp_path, context=f"race{next(fresh)}") as found:
        yield two_steps(found)


def by_hand(stage: Stage, text: str) -> str:
    """Another program appends, under the lock."""
    with Record(stage.directory).locked() as writer:
        writer.append(text)
    stage.until(lambda: stage.window.book.text.endswith(text))
    stage.idle()
    return stage.transcript


def test_no_context_is_chosen_while_a_turn_waits(stage: Stage, talk: Cluster) -> None:
    mine, whole = context_name(stage), stage.transcript
    with Record(stage.directory).locked():
        stage.type("three")
        stage.press("full")
        stage.until(lambda: "Waiting" in stage.notices)
        stage.window.workers.contexts.setEditText(f"{mine}-other")
        stage.window.workers._on_context()
        assert "Wait for it to end" in stage.notices
        assert stage.window.workers.context == context_name(stage) == mine
    stage.until(lambda: stage.transcript != whole)
    stage.idle()
    assert agrees(stage, talk)


def test_an_action_never_hits_a_context_that_the_shell_has_put_in_place_of_the_shown_one(
    stage: Stage, talk: Cluster
) -> None:
    """The shell moves the directory to another context while a turn of the window waits for the lock."""
    mine, whole = context_name(stage), stage.transcript
    with Record(stage.directory).locked() as writer:
        stage.type("three")
        stage.press("full")
        stage.until(lambda: "Waiting" in stage.notices)
        new, _ = start_new(writer, Record(stage.directory), "talk")
    stage.until(lambda: f"now continues {new}" in stage.notices and context_name(stage) == new.name)
    stage.idle()
    assert stage.window.compose.prompt.text == "three"
    assert (stage.transcript, context_of(talk, mine)) == ("", whole)
    assert not stage.window.moves.can_undo
    stage.press("full")
    stage.until(lambda: "three" in stage.transcript)
    stage.idle()
    assert agrees(stage, talk)
    assert context_of(talk, mine) == whole


def test_what_another_program_appended_can_be_undone_by_the_checkpoints(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    with Client(talk.endpoint) as client:
        reply = client.turn("(Turn 5) [X]: more", model="talk", context=context_name(stage), save=context_name(stage))
    before = by_hand(stage, "(Turn 5) [X]: more" + reply.text)
    stage.press("undo")
    stage.until(lambda: "cannot be undone" in stage.notices)
    stage.idle()
    assert stage.transcript == before
    stage.press("undo")
    stage.until(lambda: stage.transcript == whole)
    stage.idle()
    assert agrees(stage, talk)


def test_files_after_one_that_failed_are_not_added_later(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{word}.txt" for word in ("first", "second", "third", "fourth")]
    for file in files:
        file.write_text(file.stem)
    with Record(stage.directory).locked():
        stage.window.desk.put(files[:3])
        stage.until(lambda: "Waiting" in stage.notices)
        stage.press("stop")
        stage.until(lambda: not stage.window.conductor.busy)
    stage.until(lambda: "not added either: second.txt, third.txt" in stage.notices)
    before = stage.transcript
    stage.window.desk.put(files[3:])
    stage.until(lambda: stage.transcript != before)
    stage.idle()
    assert stage.transcript == before + turn(5, "FILE", "fourth")


def test_files_dropped_while_a_turn_runs_are_refused_and_not_kept_for_later(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "late.txt").write_text("late")
    with Record(stage.directory).locked():
        stage.type("three")
        stage.press("full")
        stage.until(lambda: "Waiting" in stage.notices)
        stage.window.desk.put([tmp_path / "late.txt"])
        assert "Wait for it to end" in stage.notices
    stage.until(lambda: "three" in stage.transcript)
    stage.idle()
    assert "late" not in stage.transcript


def test_only_what_is_sent_leaves_the_prompt(stage: Stage) -> None:
    """A command that failed is still in the prompt; another reply drawn then must not take it away."""
    whole = stage.transcript
    stage.type("/nonsense")
    stage.press("send")
    stage.press("reroll")
    stage.until(lambda: len(list(stage.directory.glob(".transcript.race*.txt"))) > 0)
    stage.idle()
    assert stage.transcript == whole
    assert stage.window.compose.prompt.text == "/nonsense"


def test_the_note_of_another_program_does_not_hold_the_text_of_a_failed_turn_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = Writer.answered
    note = stage.directory / ASKED

    def then_another(self: Writer) -> None:
        answered(self)
        note.write_text(json.dumps({"id": "2" * 32}))

    with monkeypatch.context() as patch:
        patch.setattr(Writer, "answered", then_another)
        stage.window.compose.bang.setText(f"!{context_name(stage)} no-such-set")
        stage.type("my words")
        stage.press("full")
        stage.until(lambda: "no-such-set" in stage.notices and not stage.window.conductor.busy)
        assert stage.window.compose.prompt.text == "my words"
    note.unlink()


def test_a_text_in_doubt_comes_back_when_another_program_finds_out_that_it_had_no_effect(stage: Stage) -> None:
    conductor = stage.window.conductor
    conductor._doubt = Draft("my words"), "(Turn 5) [USER]: my words", len(stage.window.book.text), "3" * 32
    by_hand(stage, turn(5, "USER", "of another"))
    stage.until(lambda: stage.window.compose.prompt.text == "my words")


def test_an_open_turn_that_another_program_closed_is_not_closed_again(stage: Stage) -> None:
    by_hand(stage, "(Turn 5) [USER]: open")
    with Record(stage.directory).locked() as writer:
        stage.press("close_turn")
        stage.until(lambda: "Waiting" in stage.notices)
        writer.append(FENCE)
    stage.until(lambda: "has changed since it was shown" in stage.notices)
    stage.idle()
    assert stage.transcript.endswith("(Turn 5) [USER]: open" + FENCE)


def draw(stage: Stage, count: int) -> None:
    stage.press("rerolls")
    asked = next(d for d in stage.window.findChildren(QInputDialog) if d.isVisible())
    asked.setIntValue(count)
    asked.accept()
    stage.until(lambda: len(stage.window.desk.drawn) == count)
    stage.idle()


def test_more_replies_are_drawn_beside_the_same_transcript_only(stage: Stage, talk: Cluster) -> None:
    draw(stage, 2)
    rerolls = stage.window.desk._rerolls
    index = next(i for i, t in enumerate(stage.window.book.items) if isinstance(t, Turn) and t.number == 1)
    stage.window.moves.edit(index, "USER", "another one", regenerate=False, reply_role="ECHO")
    stage.until(lambda: "another one" in stage.transcript)
    stage.idle()
    whole = stage.transcript
    rerolls.more()
    stage.until(lambda: "has changed since it was shown" in stage.notices)
    stage.idle()
    assert len(rerolls.found) == 2
    rerolls._picked(0)
    stage.until(lambda: "in the meantime" in stage.notices)
    stage.idle()
    assert stage.transcript == whole
    assert agrees(stage, talk)


def test_a_reply_drawn_for_one_context_is_not_picked_into_another(stage: Stage, talk: Cluster) -> None:
    mine, whole = context_name(stage), stage.transcript
    draw(stage, 2)
    with Client(talk.endpoint) as client:
        client.fork(mine, [f"{mine}-twin"], model="talk")
    choose(stage, f"{mine}-twin")
    stage.window.desk._rerolls._picked(0)
    stage.idle()
    assert "Choose that context first" in stage.notices
    assert stage.transcript == whole == context_of(talk, f"{mine}-twin")
    choose(stage, mine)
    stage.window.desk._rerolls._picked(0)
    stage.idle()
    assert agrees(stage, talk)


def test_a_fork_does_not_write_over_what_is_kept_under_its_name(stage: Stage, talk: Cluster) -> None:
    left = f"{context_name(stage)}.1"
    kept = stage.directory / f".transcript.{left}.txt"
    kept.write_text("the only copy")
    index = next(i for i, t in enumerate(stage.window.book.items) if isinstance(t, Turn) and t.number == 2)
    stage.window.moves.fork(index, left)
    stage.until(lambda: "another transcript is kept in" in stage.notices.lower())
    stage.idle()
    assert kept.read_text() == "the only copy"


def test_a_name_that_is_saved_over_leaves_a_branch_where_it_did_not_lead_here(stage: Stage, talk: Cluster) -> None:
    saved = f"{context_name(stage)}-saved"
    with Client(talk.endpoint) as client:
        client.turn("a stranger", model="talk", save=saved)
    for expected in (1, 1):
        stage.window.compose.prompt.set_text(f"/save {saved}")
        stage.press("send")
        stage.until(lambda: f"Saved the context as {saved}." in stage.notices and not stage.window.conductor.busy)
        stage.idle()
        with Client(talk.endpoint) as client:
            rows = client.ls(f"{saved}.", model="talk").rows
            assert len(rows) == expected
            assert client.text(rows[0].name, model="talk") == "a strangerhello!"
        stage.send("three", "full")


MakeCluster = Callable[[str], Cluster]
SLOW = {
    "replies": [{"after": "[SLOW]: ", "pieces": [f" w{i}" for i in range(3000)]}, {"after": "", "pieces": ["hey"]}],
    "token_delay_s": 0.01,
}


def test_with_all_workers_lost_a_reply_drawn_anew_ends_at_once(
    qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    """What it leaves at the broker is cleared away behind the scenes."""
    cluster = make_cluster(scripted_toml(tmp_path / "slow", script=SLOW)).up()
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        stage.window.compose.prompt.set_text(turn(1, "USER", "tell") + "(Turn 2) [SLOW]: ")
        stage.press("raw")
        stage.until(lambda: " w3" in stage.window.book.shown)
        stage.press("stop")
        stage.until(lambda: " w3" in stage.transcript)
        stage.idle()
        whole = stage.transcript
        stage.press("reroll")
        stage.until(lambda: stage.window.book.streaming and " w2" in stage.window.book.shown)
        cluster.processes["talk/0"].child.send_signal(signal.SIGKILL)
        qtbot.waitUntil(lambda: not stage.window.conductor.busy)
        cluster.worker("talk")
        stage.idle()
        assert stage.transcript == whole == own_text(cluster, tmp_path)
        with cluster.client() as client:
            assert [row.name for row in client.ls(model="talk").rows] == [own(tmp_path).name]


def test_a_window_closed_while_it_finishes_what_was_broken_off_does_not_wait_for_it(
    qtbot: QtBot, make_cluster: MakeCluster, tmp_path: Path
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "slow", script=SLOW)).up()
    text = "(Turn 1) [SLOW]: "
    arguments = {"model": "talk", "context": "live", "save": "live", "create": True}
    with Record(tmp_path).locked() as writer:
        writer.ask(Asked(id="4" * 32, at=time.time(), prompt=text, arguments=arguments, before=text, counter=1))
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.until(lambda: "recording a turn" in stage.notices)
        stage.window._leave()
        assert stage.window.link._pool.activeThreadCount() == 0
    assert Record(tmp_path).noted("4" * 32), "the next one records it"
