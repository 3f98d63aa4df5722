"""Several replies at once: each is shown as it comes, and only one that is done can be picked."""

from __future__ import annotations

import time

import pytest
from cluster import busy
from PyQt6.QtCore import Qt
from PyQt6.QtGui import QColor, QPalette
from pytestqt.qtbot import QtBot

from composer.branching.rerolls import Card, RerollPicker
from composer.reading.theme import theme_of
from ssmprov.transcript import FENCE


@pytest.fixture
def picker(qtbot: QtBot) -> RerollPicker:
    made = RerollPicker()
    qtbot.addWidget(made)
    made.begin(["mini/0", "mini/1", "mini/0"])
    made.show()
    return made


def cards(picker: RerollPicker) -> list[Card]:
    return picker._cards


def states(picker: RerollPicker) -> list[str]:
    return [card._state.text() for card in cards(picker)]


def shown(picker: RerollPicker, i: int) -> str:
    return cards(picker)[i].view.toPlainText()


def test_cards_are_numbered_and_tell_their_worker_and_state(picker: RerollPicker) -> None:
    picker.queued(0, 3)
    picker.progress(1, 120, 1900)
    picker.write(2, "Once")
    assert states(picker) == ["waiting: 3 ahead of it", "reading: 120 of 1,900 tokens", "writing"]
    assert [card._reading.isVisible() for card in cards(picker)] == [False, True, False]
    assert [card._worker.text() for card in cards(picker)] == ["mini/0", "mini/1", "mini/0"]
    assert [card.pick.text() for card in cards(picker)] == ["Pick 1", "Pick 2", "Pick 3"]
    picker.finish(0, "412 tokens")
    picker.fail(1, "its worker was lost")
    assert states(picker)[:2] == ["done: 412 tokens", "failed: its worker was lost"]
    assert cards(picker)[1].accessibleName() == "Reply 2, failed: its worker was lost"


def test_text_is_shown_as_it_comes(picker: RerollPicker, qtbot: QtBot) -> None:
    picker.write(0, "Once ")
    picker.write(1, "Far ")
    picker.write(0, "upon")
    qtbot.waitUntil(lambda: (shown(picker, 0), shown(picker, 1)) == ("Once upon", "Far "))
    assert picker.text(0) == "Once upon"


def test_many_pieces_are_written_out_together(picker: RerollPicker, qtbot: QtBot) -> None:
    document = cards(picker)[0].view.document()
    assert document is not None
    changes: list[int] = []
    document.contentsChange.connect(lambda *_: changes.append(1))
    for _ in range(500):
        picker.write(0, "word ")
    assert changes == []
    qtbot.waitUntil(lambda: shown(picker, 0) == "word " * 500)
    assert len(changes) == 1


def test_the_end_of_the_text_is_there_when_it_is_done(picker: RerollPicker) -> None:
    picker.write(0, "Once upon" + FENCE)
    picker.finish(0, "")
    assert shown(picker, 0) == "Once upon"
    assert picker.text(0) == "Once upon" + FENCE
    assert states(picker)[0] == "done"


def test_a_number_key_picks_only_what_is_done(picker: RerollPicker, qtbot: QtBot) -> None:
    picker.write(1, "text")
    picker.finish(1, "")
    picker.fail(2, "why")
    heard: list[int] = []
    picker.picked.connect(heard.append)
    for key in (Qt.Key.Key_1, Qt.Key.Key_3, Qt.Key.Key_4, Qt.Key.Key_0):
        qtbot.keyClick(picker, key)
    assert heard == []
    qtbot.keyClick(cards(picker)[0].view, Qt.Key.Key_2)
    assert heard == [1]
    qtbot.mouseClick(cards(picker)[1].pick, Qt.MouseButton.LeftButton)
    assert heard == [1, 1]
    picker.finish(0, "")
    qtbot.keyClick(picker, Qt.Key.Key_1, Qt.KeyboardModifier.ControlModifier)
    assert heard == [1, 1]


def test_stop_is_for_what_runs_and_more_for_when_nothing_does(picker: RerollPicker, qtbot: QtBot) -> None:
    assert picker.running == 3
    assert not picker._more.isEnabled()
    with qtbot.waitSignal(picker.stop_wanted):
        qtbot.mouseClick(picker._stop, Qt.MouseButton.LeftButton)
    for i in range(3):
        picker.finish(i, "stopped")
    assert picker.running == 0
    assert not picker._stop.isEnabled()
    with qtbot.waitSignal(picker.more_wanted):
        qtbot.mouseClick(picker._more, Qt.MouseButton.LeftButton)


def test_more_cards_come_behind_those_that_are_there(picker: RerollPicker, qtbot: QtBot) -> None:
    picker.write(0, "kept")
    picker.finish(0, "")
    picker.add(["mini/1"])
    assert len(cards(picker)) == 4
    assert shown(picker, 0) == "kept"
    picker.finish(3, "")
    with qtbot.waitSignal(picker.picked) as told:
        qtbot.keyClick(picker, Qt.Key.Key_4)
    assert told.args == [3]


def test_beginning_anew_drops_what_was_there(picker: RerollPicker) -> None:
    picker.write(0, "old")
    picker.begin(["mini/0"])
    assert len(cards(picker)) == 1
    assert picker.text(0) == ""
    picker.write(2, "too late")
    picker.finish(2, "too late")
    assert picker.running == 1


@pytest.mark.parametrize("how", ["escape", "close"])
def test_closing_picks_none(picker: RerollPicker, qtbot: QtBot, how: str) -> None:
    picker.finish(0, "")
    with qtbot.assertNotEmitted(picker.picked), qtbot.waitSignal(picker.closed):
        if how == "escape":
            qtbot.keyClick(picker, Qt.Key.Key_Escape)
        else:
            picker.close()
    assert not picker.isVisible()


def test_a_view_that_was_scrolled_up_stays_there(picker: RerollPicker, qtbot: QtBot) -> None:
    picker.write(0, "line\n" * 200)
    bar = cards(picker)[0].view.verticalScrollBar()
    assert bar is not None
    qtbot.waitUntil(lambda: bar.maximum() > 0 and bar.value() == bar.maximum())
    bar.setValue(3)
    picker.write(0, "line\n" * 50)
    qtbot.waitUntil(lambda: shown(picker, 0).count("line") == 250)
    assert bar.value() == 3


def test_a_failure_is_told_in_the_warning_colour_in_light_and_dark(picker: RerollPicker) -> None:
    picker.fail(0, "lost")
    dark = QPalette(QColor("#2b2b2e"))
    for role in (QPalette.ColorRole.WindowText, QPalette.ColorRole.Text):
        dark.setColor(role, QColor("white"))
    dark.setColor(QPalette.ColorRole.Base, QColor("#1f1f22"))
    light = cards(picker)[0]._state.palette().color(QPalette.ColorRole.WindowText)
    assert light == QColor(theme_of(picker.palette()).warning)
    picker.setPalette(dark)
    found = cards(picker)[0]._state.palette().color(QPalette.ColorRole.WindowText)
    assert found == QColor(theme_of(dark).warning)
    assert found != light


def test_what_a_model_writes_is_text(picker: RerollPicker) -> None:
    picker.write(0, "<b>x</b>\x00\u2028y\r")
    picker.write(0, "\nz")
    picker.finish(0, "<i>")
    assert shown(picker, 0).startswith("<b>x</b>␀\ny")
    assert states(picker)[0] == "done: <i>"


def test_eight_streams_cost_little(picker: RerollPicker, qtbot: QtBot) -> None:
    picker.begin(["mini/0"] * 8)
    begun = time.perf_counter()
    for _ in range(1000):
        for i in range(8):
            picker.write(i, "word ")
    assert time.perf_counter() - begun < 5 * busy()  # 0.3 s on a quiet machine
    qtbot.waitUntil(lambda: all(len(shown(picker, i)) == 5000 for i in range(8)))
