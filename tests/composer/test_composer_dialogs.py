"""Naming a fork, and writing a turn anew."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PyQt6.QtCore import Qt
from pytestqt.qtbot import QtBot

from composer.branching.edit_turn import EditTurnDialog
from composer.branching.fork_dialog import ForkDialog

CONTENT = "Once upon a time.\n\nThe end."


@pytest.fixture
def fork(qtbot: QtBot) -> ForkDialog:
    made = ForkDialog()
    qtbot.addWidget(made)
    made.set_taken(["live", "chapter", "chapter-2"])
    made.ask("Turn 4 BOT", ["mini/0", "mini/1"])
    return made


@pytest.fixture
def edit(qtbot: QtBot) -> EditTurnDialog:
    made = EditTurnDialog()
    qtbot.addWidget(made)
    made.show_turn(4, "BOT", CONTENT, ["USER", "BOT"])
    return made


def test_a_fork_gets_the_name_that_was_typed(fork: ForkDialog, qtbot: QtBot) -> None:
    assert not fork._fork.isEnabled()
    qtbot.keyClicks(fork.name, "try/darker ")
    with qtbot.waitSignal(fork.wanted) as told:
        qtbot.keyClick(fork.name, Qt.Key.Key_Return)
    assert told.args == ["try/darker", ""]
    assert not fork.isVisible()


def test_a_fork_can_be_put_on_a_worker(fork: ForkDialog, qtbot: QtBot) -> None:
    assert [fork.worker.itemText(n) for n in range(3)] == ["any worker", "mini/0", "mini/1"]
    qtbot.keyClicks(fork.name, "x")
    for _ in range(2):
        qtbot.keyClick(fork.worker, Qt.Key.Key_Down)
    with qtbot.waitSignal(fork.wanted) as told:
        qtbot.mouseClick(fork._fork, Qt.MouseButton.LeftButton)
    assert told.args == ["x", "mini/1"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a b", "not a valid name for a context"),
        ("../x", "not a valid name for a context"),
        ("@x", "reserved"),
        ("live", "taken: choose another name, such as live-2"),
        ("chapter", "taken: choose another name, such as chapter-3"),
    ],
)
def test_a_name_that_cannot_be_is_told_and_refused(fork: ForkDialog, qtbot: QtBot, name: str, why: str) -> None:
    qtbot.keyClicks(fork.name, name)
    assert why in fork._problem.text()
    assert not fork._fork.isEnabled()
    with qtbot.assertNotEmitted(fork.wanted):
        qtbot.keyClick(fork.name, Qt.Key.Key_Return)
        fork.accept()
    assert fork.isVisible()
    fork.set_taken([])
    assert (why in fork._problem.text()) == ("taken" not in why)


def test_a_suggested_name_is_overwritten_by_typing(fork: ForkDialog, qtbot: QtBot) -> None:
    fork.ask("Turn 6 BOT", [], "live.fork")
    assert fork.worker.count() == 1
    assert fork._fork.isEnabled()
    qtbot.keyClicks(fork.name, "y")
    assert fork.name.text() == "y"


def test_escape_forks_nothing(fork: ForkDialog, qtbot: QtBot) -> None:
    qtbot.keyClicks(fork.name, "x")
    with qtbot.assertNotEmitted(fork.wanted):
        qtbot.keyClick(fork, Qt.Key.Key_Escape)
    assert not fork.isVisible()


@pytest.mark.parametrize(
    ("modifiers", "regenerate"),
    [
        (Qt.KeyboardModifier.ControlModifier, True),
        (Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier, False),
    ],
)
def test_a_turn_is_changed_by_keys(
    edit: EditTurnDialog, qtbot: QtBot, modifiers: Qt.KeyboardModifier, regenerate: bool
) -> None:
    qtbot.keyClicks(edit.content, "Not ")
    with qtbot.waitSignal(edit.wanted) as told:
        qtbot.keyClick(edit.content, Qt.Key.Key_Return, modifiers)
    assert told.args == ["BOT", f"Not {CONTENT}", regenerate]
    assert not edit.isVisible()


def test_buttons_do_the_same(edit: EditTurnDialog, qtbot: QtBot) -> None:
    assert not edit.only_change.isEnabled()
    with qtbot.waitSignal(edit.wanted) as told:
        qtbot.mouseClick(edit.regenerate, Qt.MouseButton.LeftButton)
    assert told.args == ["BOT", CONTENT, True]
    edit.show_turn(4, "BOT", CONTENT)
    edit.role.setEditText("USER")
    with qtbot.waitSignal(edit.wanted) as told:
        qtbot.mouseClick(edit.only_change, Qt.MouseButton.LeftButton)
    assert told.args == ["USER", CONTENT, False]


@pytest.mark.parametrize("role", ["", "A]B", "x" * 65])
def test_a_role_that_could_not_be_read_back_is_refused(edit: EditTurnDialog, qtbot: QtBot, role: str) -> None:
    edit.role.setEditText(role)
    assert "is not a valid role" in edit._problem.text()
    with qtbot.assertNotEmitted(edit.wanted):
        qtbot.keyClick(edit.content, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
        qtbot.mouseClick(edit.only_change, Qt.MouseButton.LeftButton)
    edit.role.setEditText("USER")
    assert edit._problem.text() == ""


def test_roles_are_offered_once_each(edit: EditTurnDialog) -> None:
    assert [edit.role.itemText(n) for n in range(edit.role.count())] == ["BOT", "USER"]


def test_escape_closes_what_is_unchanged(edit: EditTurnDialog, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(edit.wanted):
        qtbot.keyClick(edit.content, Qt.Key.Key_Escape)
    assert not edit.isVisible()


def test_escape_asks_before_a_change_is_thrown_away(edit: EditTurnDialog, qtbot: QtBot) -> None:
    qtbot.keyClicks(edit.content, "Not ")
    qtbot.keyClick(edit.content, Qt.Key.Key_Escape)
    assert edit.isVisible()
    assert edit.question.isVisible()
    qtbot.keyClick(edit.question, Qt.Key.Key_Escape)
    assert edit.isVisible()
    assert not edit.question.isVisible()
    assert edit.text() == f"Not {CONTENT}"
    edit.close()
    assert edit.isVisible()
    with qtbot.assertNotEmitted(edit.wanted):
        qtbot.mouseClick(edit.question.yes, Qt.MouseButton.LeftButton)
    assert not edit.isVisible()


def test_a_changed_role_is_asked_about_too(edit: EditTurnDialog, qtbot: QtBot) -> None:
    edit.role.setEditText("USER")
    qtbot.keyClick(edit.content, Qt.Key.Key_Escape)
    assert edit.question.isVisible()
    qtbot.mouseClick(edit.question.no, Qt.MouseButton.LeftButton)
    assert edit.role.currentText() == "USER"


def test_another_turn_can_be_edited_after_the_first(edit: EditTurnDialog, qtbot: QtBot) -> None:
    qtbot.keyClicks(edit.content, "Not ")
    edit.close()
    edit.show_turn(6, "USER", "hello")
    assert edit.windowTitle() == "Edit turn 6"
    assert not edit.question.isVisible()
    assert (edit.text(), edit.changed) == ("hello", False)


@given(
    content=st.text(
        st.one_of(st.characters(), st.sampled_from("\r\n\u2028\u2029\xa0\x00\ud800\ufdd0\u0085🦀")), max_size=20
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_content_that_was_not_changed_comes_back_as_it_was(edit: EditTurnDialog, content: str) -> None:
    edit.show_turn(4, "BOT", content)
    assert not edit.changed
    assert edit.text() == content


@given(content=st.text("ab \n\xa0\t🦀é\u200d", max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_was_not_touched_stays_as_it_was(edit: EditTurnDialog, content: str) -> None:
    edit.show_turn(4, "BOT", content)
    edit.content.insertPlainText("x")
    assert edit.text() == f"x{content}"
