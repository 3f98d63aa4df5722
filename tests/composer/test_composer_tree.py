"""The branch dock: what it shows, how it is walked by keys, and that it only says what is wanted."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from cluster import busy
from PyQt6.QtCore import QModelIndex, QPoint, Qt
from PyQt6.QtGui import QAction, QGuiApplication
from PyQt6.QtWidgets import QMenu, QWidget
from pytestqt.qtbot import QtBot

from composer.branching.forest import Forest
from composer.branching.tree_dock import TreeDock
from composer.branching.tree_model import AGE, HEADERS, SIZE, TOKENS, WHAT, WORKER, age
from ssmprov.ops import Row, Step
from ssmprov.transcript import FENCE, full_step

WORKERS = ["mini/0", "mini/1"]
CLOCK = {"now": time.time()}


@pytest.fixture(autouse=True)
def _now() -> None:
    """Ages are told from when a test begins, not from when all of them were collected."""
    CLOCK["now"] = time.time()


def step(object: str, parent: str = "", names: tuple[str, ...] = (), back: float = 0.0) -> Step:
    excerpt = full_step(1, "USER", "go on", "BOT") + f"I am {object}" + FENCE
    return Step(
        object=object,
        parent=parent,
        tokens=1000,
        step_tokens=88,
        step_bytes=1,
        created=CLOCK["now"] - back,
        excerpt=excerpt,
        names=list(names),
    )


def story(more: tuple[Step, ...] = (), head: str = "d") -> Forest:
    """root, b, c, d (live); beside c: x (other, third) with y below it, and z (late)."""
    tree = [step("root"), step("b", "root"), step("x", "b", ("other", "third"), 60), step("y", "x", ("deep",), 5)]
    tree += [step("z", "b", ("late",), 600), step("d", "b", ("live",)), *more]
    log = [step("d", "c", ("live",)), step("c", "b"), step("b", "root"), step("root")]
    rows = {
        "live": Row(name="live", object="d", bytes=2048, pinned="mini/1"),
        "late": Row(name="late", object="z", pinned="mini/0"),
    }
    while log[0].object != head:
        log = log[1:]
    return Forest.build(tree, log, rows, {"other": "mini/0"}, "live")


@pytest.fixture
def dock(qtbot: QtBot) -> TreeDock:
    made = TreeDock()
    qtbot.addWidget(made)
    made.resize(900, 500)
    made.show_forest(story(), WORKERS)
    made.show()
    made.tree.setFocus()
    return made


def rows(dock: TreeDock, column: int = WHAT, role: Qt.ItemDataRole = Qt.ItemDataRole.DisplayRole) -> list[str]:
    """One column as it is shown, row by row, whatever is folded left out."""
    shown = []
    model = dock.tree.model()
    assert model is not None
    index = model.index(0, 0)
    while index.isValid():
        shown.append(str(model.data(index.siblingAtColumn(column), role)))
        index = dock.tree.indexBelow(index)
    return shown


def actions(menu: QMenu) -> Iterator[tuple[str, QAction]]:
    """All that a menu offers, and what is below it."""
    for action in menu.actions():
        below = action.menu()
        if below is not None and below.isEnabled():
            yield from ((f"{action.text()}/{text}".replace("&", ""), inner) for text, inner in actions(below))
        elif action.text():
            yield action.text().replace("&", ""), action


def offered(dock: TreeDock, object: str) -> dict[str, QAction]:
    dock.choose(object)
    dock.menu.aboutToShow.emit()
    return {text: action for text, action in actions(dock.menu) if action.isEnabled()}


def test_a_forest_is_shown_with_its_head_chosen(dock: TreeDock) -> None:
    assert dock.chosen == "d"
    spoken = rows(dock, role=Qt.ItemDataRole.AccessibleTextRole)
    assert [text.rsplit(" ", 1)[1] for text in spoken] == ["root", "b", "x", "y", "z", "c", "d"]
    assert spoken[-1] == "Turn 2 BOT, named live, you are here, I am d"
    assert spoken[2] == "branch: Turn 2 BOT, named other, third, I am x"


def test_the_columns_tell_tokens_age_worker_and_size(dock: TreeDock) -> None:
    assert rows(dock, TOKENS)[:2] == ["1,000", "1,000"]
    assert rows(dock, AGE)[2:5] == ["1 min", "now", "10 min"]
    assert rows(dock, WORKER)[2:] == ["0", "", "0 (pinned)", "", "1 (pinned)"]
    assert rows(dock, SIZE)[-1] == "2.0 KiB"
    model = dock.tree.model()
    assert model is not None
    assert [model.headerData(n, Qt.Orientation.Horizontal) for n in range(5)] == list(HEADERS)


@pytest.mark.parametrize(
    ("created", "word"),
    [(0, ""), (99_941, "now"), (99_940, "1 min"), (96_400, "1 h"), (10_000, "1 d"), (200_000, "now")],
)
def test_an_age_is_one_short_word(created: float, word: str) -> None:
    assert age(created, 100_000) == word


def test_a_context_that_a_run_made_leads_to_the_report_of_its_specialist(dock: TreeDock, qtbot: QtBot) -> None:
    assert not any(text.startswith("Report") for text in offered(dock, "x"))
    dock.show_forest(story((step("made", "root", ("draw", "specialists/draw/20261122_120000")),)), WORKERS)
    with qtbot.waitSignal(dock.report_wanted) as told:
        offered(dock, "made")["Report on draw"].trigger()
    assert told.args == ["draw"]


def test_what_has_no_room_is_hidden_and_stands_in_the_tooltip(dock: TreeDock, qtbot: QtBot) -> None:
    assert not dock.tree.isColumnHidden(SIZE)
    dock.resize(dock.minimumSizeHint().width(), 500)
    qtbot.waitUntil(lambda: dock.tree.isColumnHidden(TOKENS))
    assert dock.tree.isColumnHidden(SIZE)
    assert not dock.tree.isColumnHidden(WHAT)
    tip = rows(dock, role=Qt.ItemDataRole.ToolTipRole)[-1]
    for word in ("Names: live", "1,000 tokens read, 88 since", "2.0 KiB", "Pinned to mini/1", "#d"):
        assert word in tip


def test_enter_goes_to_the_chosen_checkpoint_but_not_to_the_head(dock: TreeDock, qtbot: QtBot) -> None:
    with qtbot.assertNotEmitted(dock.go_wanted):
        qtbot.keyClick(dock.tree, Qt.Key.Key_Return)
    qtbot.keyClick(dock.tree, Qt.Key.Key_Up)
    assert dock.chosen == "c"
    with qtbot.waitSignal(dock.go_wanted) as told:
        qtbot.keyClick(dock.tree, Qt.Key.Key_Return)
    assert told.args == ["c"]


def test_a_double_click_goes_there_once(dock: TreeDock, qtbot: QtBot) -> None:
    dock.choose("x")
    view = dock.tree.viewport()
    place = dock.tree.visualRect(dock.tree.currentIndex()).center()
    heard: list[str] = []
    dock.go_wanted.connect(heard.append)
    qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=place)
    qtbot.mouseDClick(view, Qt.MouseButton.LeftButton, pos=place)
    assert heard == ["x"]


def test_arrow_keys_fold_and_unfold_branches(dock: TreeDock, qtbot: QtBot) -> None:
    dock.choose("b")
    qtbot.keyClick(dock.tree, Qt.Key.Key_Left)
    assert len(rows(dock)) == 4
    qtbot.keyClick(dock.tree, Qt.Key.Key_Right)
    assert len(rows(dock)) == 7
    qtbot.keyClick(dock.tree, Qt.Key.Key_Down)
    assert dock.chosen == "x"


def test_parent_child_and_siblings_are_chosen_by_what_follows_what(dock: TreeDock) -> None:
    dock.choose_parent()
    assert dock.chosen == "c"
    seen = []
    for _ in range(4):
        dock.choose_sibling(1)
        seen.append(dock.chosen)
    assert seen == ["z", "x", "c", "z"]
    dock.choose_sibling(-1)
    assert dock.chosen == "c"
    dock.choose_parent()
    dock.choose_child()
    assert dock.chosen == "c"
    dock.choose("x")
    dock.choose_child()
    assert dock.chosen == "y"
    dock.choose_head()
    assert dock.chosen == "d"


def test_what_was_chosen_and_folded_stays_so(dock: TreeDock, qtbot: QtBot) -> None:
    dock.choose("b")
    qtbot.keyClick(dock.tree, Qt.Key.Key_Left)
    dock.show_forest(story((step("new", "root", ("new",)),)), WORKERS)
    assert dock.chosen == "b"
    assert [text.rsplit(" ", 1)[1] for text in rows(dock, role=Qt.ItemDataRole.AccessibleTextRole)] == [
        *("root", "new", "b", "c", "d")
    ]


def test_the_choice_follows_the_head_only_where_it_was_on_it(dock: TreeDock) -> None:
    dock.show_forest(story(head="c"), WORKERS)
    assert dock.chosen == "c"
    dock.choose("x")
    dock.show_forest(story(), WORKERS)
    assert dock.chosen == "x"


def test_the_head_is_chosen_where_the_chosen_one_is_gone(dock: TreeDock) -> None:
    dock.show_forest(story((step("gone", "root", ("gone",)),)), WORKERS)
    dock.choose("gone")
    dock.show_forest(story(), WORKERS)
    assert dock.chosen == "d"


def test_a_dock_that_is_hidden_unfolds_for_what_is_chosen(qtbot: QtBot) -> None:
    dock = TreeDock()
    qtbot.addWidget(dock)
    log = [step(f"s{n}", f"s{n - 1}" if n else "") for n in range(30)][::-1]
    dock.show_forest(Forest.build([], log, {}, {}, "live"), WORKERS)
    dock.choose("s12")
    assert dock.chosen == "s12"
    assert len(rows(dock)) == 31


def test_a_refresh_does_not_scroll(dock: TreeDock, qtbot: QtBot) -> None:
    log = [step(f"s{n}", f"s{n - 1}" if n else "", (f"n{n}",)) for n in range(100)][::-1]
    dock.show_forest(Forest.build([], log, {}, {}, "live"), WORKERS)
    bar = dock.tree.verticalScrollBar()
    assert bar is not None
    qtbot.waitUntil(lambda: bar.value() == bar.maximum() > 0)  # a new head is scrolled to
    bar.setValue(7)
    more = [step("new", "s1", ("new",))]
    dock.show_forest(Forest.build(more, log, {}, {}, "live"), WORKERS)
    assert dock.chosen == "s99"
    dock.tree.grab()
    assert bar.value() == 7


def test_the_same_forest_again_changes_nothing(dock: TreeDock, qtbot: QtBot) -> None:
    model = dock.tree.model()
    assert model is not None
    with qtbot.assertNotEmitted(model.modelReset):
        dock.show_forest(story(), WORKERS)


def test_without_a_forest_the_reason_is_shown(dock: TreeDock) -> None:
    dock.show_forest(None, [], "No broker answers.")
    assert not dock.tree.isVisible()
    assert dock._reason.isVisible()
    assert dock._reason.text() == "No broker answers."
    assert dock.chosen == ""
    dock.choose_parent()
    dock.choose_sibling(1)
    assert dock.chosen == ""
    dock.show_forest(story(), WORKERS)
    assert dock.tree.isVisible()


def test_buttons_are_there_for_what_can_be_done(dock: TreeDock, qtbot: QtBot) -> None:
    assert not dock._go.isEnabled()
    assert not dock._compare.isEnabled()
    dock.choose("z")
    for button, signal, said in (
        (dock._go, dock.go_wanted, ["z"]),
        (dock._fork, dock.fork_wanted, ["z"]),
        (dock._compare, dock.compare_wanted, ["d", "z"]),
    ):
        with qtbot.waitSignal(signal) as told:
            qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
        assert told.args == said


def test_the_menu_offers_what_a_checkpoint_admits(dock: TreeDock) -> None:
    assert list(offered(dock, "c")) == ["Go here", "Fork here…", "Compare with current", "Copy hash"]
    assert list(offered(dock, "d")) == [
        *("Fork here…", "Copy hash", "Move to worker/mini/0", "Move to worker/Any worker")
    ]
    assert list(offered(dock, "z"))[4:] == [
        *("Move to worker/mini/1", "Move to worker/Any worker", "Remove the name “late”…")
    ]
    assert list(offered(dock, "x"))[4:] == [
        *("Move to worker/other/mini/0", "Move to worker/other/mini/1"),
        *("Move to worker/third/mini/0", "Move to worker/third/mini/1"),
        *("Remove a name/other…", "Remove a name/third…"),
    ]


def test_the_menu_says_what_is_wanted(dock: TreeDock, qtbot: QtBot) -> None:
    menu = offered(dock, "z")
    for text, signal, said in (
        ("Go here", dock.go_wanted, ["z"]),
        ("Fork here…", dock.fork_wanted, ["z"]),
        ("Compare with current", dock.compare_wanted, ["d", "z"]),
        ("Move to worker/mini/1", dock.move_wanted, ["late", "mini/1"]),
        ("Move to worker/Any worker", dock.move_wanted, ["late", ""]),
    ):
        with qtbot.waitSignal(signal) as told:
            menu[text].trigger()
        assert told.args == said
    menu["Copy hash"].trigger()
    clipboard = QGuiApplication.clipboard()
    assert clipboard is not None
    assert clipboard.text() == "#z"


def test_a_name_is_taken_away_only_after_a_question(dock: TreeDock, qtbot: QtBot) -> None:
    dock.choose("z")
    with qtbot.assertNotEmitted(dock.unname_wanted):
        qtbot.keyClick(dock.tree, Qt.Key.Key_Delete)
        assert dock.question.isVisible()
        assert "late" in dock.question.text.text()
        qtbot.keyClick(dock.question, Qt.Key.Key_Escape)
    assert not dock.question.isVisible()
    qtbot.keyClick(dock.tree, Qt.Key.Key_Delete)
    with qtbot.waitSignal(dock.unname_wanted) as told:
        qtbot.mouseClick(dock.question.yes, Qt.MouseButton.LeftButton)
    assert told.args == ["late"]
    assert not dock.question.isVisible()


def test_delete_asks_nothing_where_there_is_only_the_current_name(dock: TreeDock, qtbot: QtBot) -> None:
    for object in ("d", "c"):
        dock.choose(object)
        qtbot.keyClick(dock.tree, Qt.Key.Key_Delete)
        assert not dock.question.isVisible()


def test_the_context_menu_is_for_the_row_under_the_pointer(dock: TreeDock) -> None:
    dock.choose("y")
    place = dock.tree.visualRect(dock.tree.currentIndex()).center()
    dock.choose("d")
    dock.tree.customContextMenuRequested.emit(QPoint(place))
    assert dock.chosen == "y"
    assert dock.menu.isVisible()
    dock.menu.hide()


def test_a_folded_run_unfolds_by_keys_and_a_step_in_it_can_be_chosen(dock: TreeDock, qtbot: QtBot) -> None:
    log = [step(f"s{n}", f"s{n - 1}" if n else "") for n in range(30)][::-1]
    dock.show_forest(Forest.build([], log, {}, {}, "live"), WORKERS)
    assert rows(dock)[1] == "24 steps"
    dock.tree.setCurrentIndex(dock.tree.indexBelow(dock.tree.model().index(0, 0)))  # type: ignore[union-attr]
    assert dock.chosen == ""
    dock.show_forest(Forest.build([step("other")], log, {}, {}, "live"), WORKERS)
    with qtbot.assertNotEmitted(dock.go_wanted):
        qtbot.keyClick(dock.tree, Qt.Key.Key_Return)
    assert len(rows(dock)) == 31 + 1
    qtbot.keyClick(dock.tree, Qt.Key.Key_Return)
    assert len(rows(dock)) == 8
    dock.choose("s12")
    assert dock.chosen == "s12"
    assert len(rows(dock)) == 32


def test_every_control_has_a_name_and_can_be_reached_by_tab(dock: TreeDock) -> None:
    for widget in (dock.tree, dock._go, dock._fork, dock._compare, dock._more):
        assert isinstance(widget, QWidget)
        assert widget.accessibleName()
        assert widget.focusPolicy() & Qt.FocusPolicy.TabFocus


def test_two_thousand_branches_are_shown_at_once(dock: TreeDock, qtbot: QtBot) -> None:
    log = [step(f"s{n}", f"s{n - 1}" if n else "") for n in range(10_000)][::-1]
    tree = [step(f"s{n}") for n in range(0, 10_000, 5)]
    tree += [step(f"n{n}", f"s{n}", (f"n{n}",)) for n in range(0, 10_000, 5)]
    forest = Forest.build(tree, log, {}, {}, "live")
    begun = time.perf_counter()
    dock.show_forest(forest, WORKERS)
    dock.tree.grab()
    assert time.perf_counter() - begun < 5 * busy()
    assert dock.chosen == "s9999"
    dock.choose("n500")
    assert dock.chosen == "n500"
    model = dock.tree.model()
    assert model is not None
    assert model.rowCount(QModelIndex()) == 10_000
