from __future__ import annotations

import pytest
from PyQt6.QtCore import Qt
from PyQt6.QtGui import QColor, QPalette
from PyQt6.QtWidgets import QApplication, QLineEdit, QPushButton, QVBoxLayout, QWidget
from pytestqt.qtbot import QtBot

from composer.advice import sentence
from composer.panels.notice_bar import NoticeBar
from ssmprov.errors import Unreachable


@pytest.fixture
def bar(qtbot: QtBot) -> NoticeBar:
    window = QWidget()
    column = QVBoxLayout(window)
    bar = NoticeBar()
    column.addWidget(bar)
    column.addWidget(QLineEdit())
    column.addStretch(1)
    window.resize(900, 300)
    qtbot.addWidget(window)
    with qtbot.waitActive(window):
        window.show()
        window.activateWindow()
    bar.keep = window  # type: ignore[attr-defined]
    return bar


def buttons(bar: NoticeBar) -> dict[str, QPushButton]:
    return {button.text(): button for button in bar.findChildren(QPushButton) if button.isVisible()}


def test_it_takes_no_room_while_there_is_nothing_to_say(bar: NoticeBar) -> None:
    assert not bar.isVisible()
    bar.show_error("Something is wrong.")
    assert bar.isVisible()
    bar.clear()
    assert not bar.isVisible()


def test_the_newest_is_shown_and_closing_it_shows_the_one_before(bar: NoticeBar, qtbot: QtBot) -> None:
    bar.show_error("one")
    bar.show_hint("two")
    assert bar.message.text() == "two"
    qtbot.mouseClick(bar._close, Qt.MouseButton.LeftButton)
    assert bar.message.text() == "one"
    qtbot.mouseClick(bar._close, Qt.MouseButton.LeftButton)
    assert not bar.isVisible()


def test_equal_ones_are_one_and_there_are_five_at_most(bar: NoticeBar) -> None:
    for message in "abcabc":
        bar.show_error(message)
    assert [notice.message for notice in bar.notices] == ["a", "b", "c"]
    for message in "defgh":
        bar.show_error(message)
    assert [notice.message for notice in bar.notices] == list("defgh")


def test_a_notice_whose_reason_is_gone_can_be_taken_away(bar: NoticeBar) -> None:
    bar.show_error("one")
    bar.show_error("two")
    bar.forget("one")
    bar.forget("never said")
    assert [notice.message for notice in bar.notices] == ["two"]


def test_an_action_is_done_and_its_notice_goes(bar: NoticeBar, qtbot: QtBot) -> None:
    done: list[str] = []

    def retry() -> None:
        done.append("retry")
        bar.show_error("again")  # the action may have something to say itself

    bar.show_error("failed", [("Try again", retry), ("Other", lambda: done.append("other"))])
    qtbot.mouseClick(buttons(bar)["Try again"], Qt.MouseButton.LeftButton)
    assert done == ["retry"]
    assert [notice.message for notice in bar.notices] == ["again"]
    assert "Try again" not in buttons(bar)


def test_keys_alone_reach_the_actions_in_order(bar: NoticeBar, qtbot: QtBot) -> None:
    done: list[int] = []
    bar.show_error("failed", [("One", lambda: done.append(1)), ("Two", lambda: done.append(2))], details="x")
    bar.setFocus()
    seen = []
    for _ in range(6):
        focused = QApplication.focusWidget()
        assert focused is not None
        seen.append(focused.accessibleName())
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    assert [name for name in seen if name in {"One", "Two", "Show the details", "Close this notice"}] == [
        "One",
        "Two",
        "Show the details",
        "Close this notice",
    ]
    two = buttons(bar)["Two"]
    two.setFocus()
    qtbot.keyClick(two, Qt.Key.Key_Space)
    assert done == [2]


def test_escape_closes_it_from_any_of_its_parts(bar: NoticeBar, qtbot: QtBot) -> None:
    bar.show_error("one", [("Do", lambda: None)])
    bar.show_error("two", details="trace")
    bar.setFocus()
    qtbot.keyClick(bar, Qt.Key.Key_Escape)
    assert bar.message.text() == "one"
    button = buttons(bar)["Do"]
    button.setFocus()
    qtbot.keyClick(button, Qt.Key.Key_Escape)
    assert not bar.isVisible()


def test_details_are_shown_on_demand(bar: NoticeBar, qtbot: QtBot) -> None:
    bar.show_error("failed", details="line 1\nline 2")
    assert not bar.details.isVisible()
    qtbot.mouseClick(buttons(bar)["Details"], Qt.MouseButton.LeftButton)
    assert bar.details.isVisible()
    assert bar.details.toPlainText() == "line 1\nline 2"
    bar.show_hint("without")
    assert not bar.details.isVisible()
    assert "Details" not in buttons(bar)


def test_a_message_is_text_never_markup(bar: NoticeBar) -> None:
    bar.show_error("<b>bold</b> & <img src=x>")
    assert bar.message.textFormat() == Qt.TextFormat.PlainText
    assert bar.message.textInteractionFlags() & Qt.TextInteractionFlag.TextSelectableByKeyboard


def test_a_screen_reader_is_told_by_the_name(bar: NoticeBar) -> None:
    bar.show_error("The disk is full.")
    assert bar.accessibleName() == "Error: The disk is full."
    bar.show_hint("All well.")
    assert bar.accessibleName() == "Hint: All well."


def test_buttons_go_below_the_message_where_it_is_narrow(bar: NoticeBar, qtbot: QtBot) -> None:
    bar.show_error("A sentence of some length. " * 4, [("Start one", lambda: None), ("Try again", lambda: None)])
    window = bar.window()
    assert window is not None

    def below() -> bool:
        return buttons(bar)["Try again"].y() >= bar.message.geometry().bottom()

    qtbot.waitUntil(lambda: not below())
    window.resize(320, 300)
    qtbot.waitUntil(below)


def test_it_follows_light_and_dark(bar: NoticeBar, qtbot: QtBot) -> None:
    bar.show_error("x")

    def corner() -> QColor:
        return bar.grab().toImage().pixelColor(bar.width() // 2, 3)

    light = corner().lightness()
    window = bar.window()
    assert window is not None
    window.setPalette(QPalette(QColor(40, 40, 44)))
    assert light > 180
    qtbot.waitUntil(lambda: corner().lightness() < 110)


def test_a_missing_broker_is_described_without_the_advice_for_a_shell() -> None:
    error = Unreachable("words with advice for a shell", fault="no broker answers at ipc:///run/x")
    assert sentence(error) == "No broker answers at ipc:///run/x."
