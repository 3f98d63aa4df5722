"""Branches in the window: trying again from any turn, and coming back, with nothing lost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from PyQt6.QtWidgets import QApplication, QInputDialog
from pytestqt.qtbot import QtBot
from stage import Stage, agrees, context_name, context_of, opened, two_steps

from clients import Client
from composer.branching.edit_turn import EditTurnDialog
from composer.branching.fork_dialog import ForkDialog
from composer.branching.rerolls import RerollPicker
from ssmprov.transcript import Turn, turn

fresh = itertools.count(1)


@pytest.fixture
def stage(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> Iterator[Stage]:
    """A window with two full steps: turns 1 to 4."""
    with opened(qtbot, talk.endpoint, tmp_path, context=f"tree{next(fresh)}") as found:
        yield two_steps(found)


def index_of(stage: Stage, number: int) -> int:
    items = stage.window.book.items
    return next(i for i, item in enumerate(items) if isinstance(item, Turn) and item.number == number)


def done(stage: Stage, before: str) -> None:
    stage.until(lambda: stage.transcript != before)
    stage.idle()


def branches(stage: Stage, talk: Cluster) -> dict[str, str]:
    """The branches left behind: their names, and what each has read."""
    with Client(talk.endpoint) as client:
        rows = client.ls(f"{context_name(stage)}.", model="talk").rows
        return {row.name: client.text(row.name, model="talk") for row in rows}


def file_of(stage: Stage, branch: str) -> str:
    return (stage.directory / f".transcript.{branch}.txt").read_text()


def dialog(stage: Stage, kind: type) -> object:
    """The dialog of that kind that is open."""
    found = [widget for widget in QApplication.topLevelWidgets() if isinstance(widget, kind) and widget.isVisible()]
    assert found, f"no {kind.__name__} is open"
    return found[-1]


def test_another_reply_leaves_the_old_one_as_a_branch_with_its_transcript(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 2))
    stage.press("reroll")
    done(stage, whole)
    assert stage.transcript == turn(1, "USER", "one") + turn(2, "ECHO", "as you say.")
    assert agrees(stage, talk)
    ((branch, text),) = branches(stage, talk).items()
    assert text == file_of(stage, branch) == whole
    assert (stage.directory / ".counter").read_text() == "2"


def test_another_reply_is_seeded_anew(stage: Stage, talk: Cluster) -> None:
    def seed() -> object:
        with Client(talk.endpoint) as client:
            return client.show(context_name(stage), model="talk").seed

    seeds = [seed()]
    for _ in range(2):
        stage.press("reroll")
        stage.until(lambda: not stage.window.conductor.busy)
        stage.idle()
        seeds.append(seed())
    assert len(set(seeds)) == 3


def test_a_changed_turn_is_answered_anew(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 1))
    stage.press("edit")
    edit = dialog(stage, EditTurnDialog)
    assert isinstance(edit, EditTurnDialog)
    edit.wanted.emit("USER", "uno\n\n~~~(end)~~~\n\nstill", True)
    edit.close()
    done(stage, whole)
    assert stage.transcript == turn(1, "USER", "uno\n\n~~~(end)~~~\n\nstill") + turn(2, "ECHO", "as you say.")
    assert agrees(stage, talk)
    assert list(branches(stage, talk).values()) == [whole]


def test_the_models_turn_is_changed_and_what_follows_is_read_as_it_stands(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 2))
    stage.press("edit")
    edit = dialog(stage, EditTurnDialog)
    assert isinstance(edit, EditTurnDialog)
    edit.wanted.emit("ECHO", "what I wanted", False)
    edit.close()
    done(stage, whole)
    assert stage.transcript == whole.replace("as you say.", "what I wanted", 1)
    assert agrees(stage, talk)


def test_one_goes_back_and_on_from_there(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 1))
    stage.press("back")
    done(stage, whole)
    assert stage.transcript == turn(1, "USER", "one")
    stage.send("instead", "full")
    assert [t.number for t in stage.window.book.items if isinstance(t, Turn)] == [1, 2, 3]
    assert agrees(stage, talk)
    assert list(branches(stage, talk).values()) == [whole]


def test_undo_and_redo_cover_turns_edits_and_going_back(stage: Stage, talk: Cluster) -> None:
    states = [stage.transcript]
    for act in ("reroll", "back"):
        stage.window.pane.choose(index_of(stage, 2 if act == "reroll" else 1))
        stage.press(act)
        done(stage, states[-1])
        states.append(stage.transcript)
    stage.send("three", "full")
    states.append(stage.transcript)
    for expected in reversed(states[:-1]):
        before = stage.transcript
        stage.press("undo")
        done(stage, before)
        assert stage.transcript == expected
        assert agrees(stage, talk)
    for expected in states[1:]:
        before = stage.transcript
        stage.press("redo")
        done(stage, before)
        assert stage.transcript == expected
        assert agrees(stage, talk)
    assert not stage.window.actions_["redo"].isEnabled()


def test_undo_reaches_the_empty_transcript_and_before_this_window(qtbot: QtBot, stage: Stage, talk: Cluster) -> None:
    """Turns of an earlier window are undone by way of the checkpoints."""
    whole = stage.transcript
    stage.window.moves.forget()
    stage.press("undo")
    done(stage, whole)
    assert stage.transcript == turn(1, "USER", "one") + turn(2, "ECHO", "as you say.")
    before = stage.transcript
    stage.press("undo")
    done(stage, before)
    assert stage.transcript == ""
    stage.press("redo")
    stage.until(lambda: stage.transcript == before)
    stage.idle()
    stage.press("redo")
    stage.until(lambda: stage.transcript == whole)
    stage.idle()
    assert agrees(stage, talk)


def test_a_place_is_forked_under_a_name_and_on_a_worker(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    fork = f"{context_name(stage)}-fork"
    stage.window.pane.choose(index_of(stage, 3))
    stage.press("fork")
    asked = dialog(stage, ForkDialog)
    assert isinstance(asked, ForkDialog)
    asked.wanted.emit(fork, "talk/1")
    asked.close()
    stage.until(lambda: "Forked as" in stage.notices)
    stage.idle()
    expected = turn(1, "USER", "one") + turn(2, "ECHO", "as you say.") + turn(3, "USER", "two")
    assert context_of(talk, fork) == expected == file_of(stage, fork)
    with Client(talk.endpoint) as client:
        assert client.show(fork, model="talk").row.pinned == "talk/1"
    assert stage.transcript == whole


def test_the_tree_shows_the_branches_and_leads_to_them(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 2))
    stage.press("back")
    done(stage, whole)
    stage.send("another way", "full")
    here = stage.transcript
    stage.until(lambda: stage.window.watcher.forest is not None)
    stage.until(lambda: f"{context_name(stage)}.1" in stage.window.watcher.names)
    forest = stage.window.watcher.forest
    assert forest is not None
    (left,) = [node for node in forest.nodes.values() if f"{context_name(stage)}.1" in node.names]
    assert not left.on_path
    assert forest.nodes[forest.head].on_path
    assert {node.object for node in forest.siblings(left.object)} == {left.object, forest.head}
    stage.window.tree.go_wanted.emit(left.object)
    done(stage, here)
    assert stage.transcript == whole
    assert agrees(stage, talk)
    assert sorted(branches(stage, talk).values()) == sorted([whole, here])


def test_two_branches_are_compared_side_by_side(stage: Stage) -> None:
    whole = stage.transcript
    stage.window.pane.choose(index_of(stage, 2))
    stage.press("back")
    done(stage, whole)
    forest_ready = lambda: f"{context_name(stage)}.1" in stage.window.watcher.names  # noqa: E731
    stage.until(forest_ready)
    forest = stage.window.watcher.forest
    assert forest is not None
    (left,) = [node for node in forest.nodes.values() if f"{context_name(stage)}.1" in node.names]
    stage.window.desk.compare(left.object, forest.head)
    stage.until(lambda: stage.window.desk.comparing is not None and stage.window.desk.comparing.isVisible())
    stage.window.desk.comparing.close()


def test_several_replies_are_drawn_on_all_workers_and_one_is_picked(stage: Stage, talk: Cluster) -> None:
    whole = stage.transcript
    stage.press("rerolls")
    asked = dialog(stage, QInputDialog)
    assert isinstance(asked, QInputDialog)
    asked.setIntValue(3)
    asked.accept()
    stage.until(lambda: len(stage.window.desk.drawn) == 3)
    stage.idle()
    picker = dialog(stage, RerollPicker)
    assert isinstance(picker, RerollPicker)
    assert stage.transcript == whole, "nothing changes before one is picked"
    kept = branches(stage, talk)
    assert len(kept) == 3
    with Client(talk.endpoint) as client:
        made = {client.status().contexts.get(f"talk:{branch}") for branch in kept}
    assert made == {"talk/0", "talk/1"}
    picker.picked.emit(1)
    stage.until(lambda: not stage.window.conductor.busy and stage.window.link.busy == 0)
    stage.until(lambda: len(branches(stage, talk)) == 3)
    assert agrees(stage, talk)
    texts = branches(stage, talk)
    assert whole in texts.values(), "the reply that stood is a branch now"


def test_nothing_is_done_to_a_transcript_that_is_not_the_one_shown(stage: Stage, talk: Cluster) -> None:
    """What another program has just appended is not on the screen yet: then no turn is meant."""
    whole, index = stage.transcript, index_of(stage, 2)
    with (stage.directory / ".transcript.txt").open("a") as file:
        file.write("by hand")
    stage.window.moves.reroll(index)  # before the window's loop has turned
    stage.until(lambda: "has changed since it was shown" in stage.notices)
    stage.idle()
    assert stage.transcript == whole + "by hand"
    assert context_of(talk, context_name(stage)) == whole
    assert branches(stage, talk) == {}
