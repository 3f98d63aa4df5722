"""The transcript's pane: the chosen turn, the search, the raw text, and what the desktop brings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panes import Show, drawn, filled, turns, wheel
from PyQt6.QtCore import QEvent, QMimeData, QPoint, QPointF, Qt, QUrl
from PyQt6.QtGui import QColor, QContextMenuEvent, QDropEvent, QImage, QPalette, QTextCursor, QTextDocument
from PyQt6.QtWidgets import QApplication, QPushButton
from pytestqt.qtbot import QtBot

from composer.reading.book import Book
from composer.reading.search_bar import place_after, places
from composer.reading.transcript_pane import TranscriptPane
from ssmprov.transcript import Turn, header, parse, turn
from transcripts.record import TRANSCRIPT

# -- the chosen turn


def test_a_click_chooses_a_turn_and_another_click_does_not(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(4))
    pane.rendered.update_now()
    place = pane.rendered.cursorRect(pane.rendered.text.find("says 2")).center()
    with qtbot.waitSignal(pane.turn_chosen) as signal:
        qtbot.mouseClick(pane.rendered.port, Qt.MouseButton.LeftButton, pos=place)
    assert signal.args == [1]
    assert pane.chosen == 1
    with qtbot.waitSignal(pane.turn_chosen) as signal:
        qtbot.mouseClick(pane.rendered.port, Qt.MouseButton.LeftButton, pos=place)
    assert signal.args == [-1]


def test_the_chosen_turn_is_marked_in_both_tabs(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(4))
    for tab, view in (("rendered", pane.rendered), ("raw", pane.raw)):
        pane.tab = tab
        pane.choose(-1)
        before = view.port.grab().toImage()
        pane.choose(1)
        after = view.port.grab().toImage()
        rows = [y for y in range(after.height()) if after.pixelColor(1, y) != before.pixelColor(1, y)]
        assert len(rows) > view.fontMetrics().height()
        frame = pane.palette().color(QPalette.ColorRole.Highlight)
        assert after.pixelColor(1, rows[len(rows) // 2]).name() == frame.name()


def test_steps_go_from_turn_to_turn(show: Show, qtbot: QtBot) -> None:
    pane = show("!bang\n" + turns(3) + "loose\n" + turns(2, 4))
    pane.choose_step(-1)
    assert isinstance(pane.book.items[pane.chosen], Turn)
    seen = [pane.chosen]
    for _ in range(6):
        pane.choose_step(-1)
        seen.append(pane.chosen)
    assert seen == [6, 5, 3, 2, 1, 1, 1]
    pane.choose_step(1)
    assert pane.chosen == 2


def test_a_turn_far_above_is_brought_into_view(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(2000))
    pane.choose(10)
    top, bottom = pane.rendered.extent(10)
    assert 0 <= top - pane.rendered.bar.value() < bottom - pane.rendered.bar.value() <= pane.rendered.port.height()
    assert len(pane.rendered.loaded) < 400
    assert not pane.following
    assert "later turns" in drawn(pane)
    pane.book.begin(header(2001, "USER") + "hello")
    assert "hello" not in drawn(pane)
    pane.jump_to_end()
    assert drawn(pane).endswith("hello\n\u258d")


def test_later_turns_are_loaded_until_the_end(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(450))
    pane.choose(5)
    filled(qtbot, pane, 100)
    while "later turns" in drawn(pane):
        count = len(pane.rendered.loaded)
        pane.rendered.load_later()
        filled(qtbot, pane, count + 1)
        qtbot.wait(1)
    assert pane.rendered.loaded == range(450)
    pane.book.begin(header(451, "USER") + "hello")
    assert "hello" in drawn(pane)


def test_a_choice_that_is_gone_is_none(show: Show, tmp_path: Path, qtbot: QtBot) -> None:
    pane = show(turns(5))
    pane.choose(4)
    with qtbot.waitSignal(pane.turn_chosen) as signal:
        (tmp_path / TRANSCRIPT).write_text(turns(2))
    assert signal.args == [-1]


@pytest.mark.parametrize("tab", ["rendered", "raw"])
def test_the_menu_comes_by_mouse_and_by_key(show: Show, qtbot: QtBot, tab: str) -> None:
    pane = show(turns(3))
    pane.tab = tab
    view = pane.rendered if tab == "rendered" else pane.raw
    asked: list[tuple[int, QPoint]] = []
    pane.menu_wanted.connect(lambda index, place: asked.append((index, place)))
    view.update_now()
    found = view.document().find("says 2")
    place = view.cursorRect(found).center()
    for reason, at in ((QContextMenuEvent.Reason.Mouse, place), (QContextMenuEvent.Reason.Keyboard, QPoint(1, 1))):
        QApplication.sendEvent(view.port, QContextMenuEvent(reason, at, view.port.mapToGlobal(at)))
    assert [index for index, _ in asked] == [1, 1]
    assert pane.chosen == 1
    assert view.port.rect().contains(view.port.mapFromGlobal(asked[1][1]))


# -- the search


def search(pane: TranscriptPane, qtbot: QtBot, text: str) -> str:
    pane.show_search()
    pane.search_bar.field.clear()
    qtbot.keyClicks(pane.search_bar.field, text)
    qtbot.keyClick(pane.search_bar.field, Qt.Key.Key_Return)
    return pane.search_bar.said


@pytest.mark.parametrize("tab", ["rendered", "raw"])
def test_all_of_the_text_is_searched_also_what_is_not_loaded(show: Show, qtbot: QtBot, tab: str) -> None:
    pane = show(turns(900) + turn(901, "USER", "Says 17 too, SAYS 17"))
    pane.tab = tab
    assert search(pane, qtbot, "says 17").endswith(" of 13")
    seen = []
    for _ in range(13):
        qtbot.keyClick(pane.search_bar.field, Qt.Key.Key_Return)
        seen.append(pane.search_bar.said)
    assert sorted(seen, key=lambda said: int(said.split()[0])) == [f"{n} of 13" for n in range(1, 14)]
    while not pane.search_bar.said.startswith("1 "):
        qtbot.keyClick(pane.search_bar.field, Qt.Key.Key_Return, Qt.KeyboardModifier.ShiftModifier)
    if tab == "raw":
        assert pane.raw.textCursor().selectedText() == "says 17"
        assert pane.raw.textCursor().block().text() == "(Turn 17) [USER]: says 17"
    else:
        assert 16 in pane.rendered.loaded
        marked = pane.rendered.extraSelections()
        assert [one.cursor.selectedText() for one in marked] == ["says 17"]
        assert pane.rendered.port.rect().contains(pane.rendered.cursorRect(marked[0].cursor).center())


def test_a_place_within_a_formula_is_counted_and_said_to_be_in_the_raw_text(show: Show, qtbot: QtBot) -> None:
    pane = show(turn(1, "USER", "so $\\alpha$"))
    assert search(pane, qtbot, "\\alpha") == "1 of 1, see Raw"
    assert search(pane, qtbot, "nowhere") == "Not found"


def test_escape_closes_the_search(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(3))
    search(pane, qtbot, "says")
    assert pane.rendered.extraSelections()
    qtbot.keyClick(pane.search_bar.field, Qt.Key.Key_Escape)
    assert pane.search_bar.isHidden()
    assert not pane.rendered.extraSelections()
    assert pane.rendered.hasFocus()


def test_the_search_sees_what_was_written_since(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(3))
    assert search(pane, qtbot, "fresh") == "Not found"
    pane.book.begin(header(4, "USER") + "something fresh")
    pane.find_next()
    assert pane.search_bar.said == "1 of 1"


def test_places_are_found_in_any_case() -> None:
    assert places("aA.a", "a") == [0, 1, 3]
    assert places("a.b", ".") == [1]
    assert places("abc", "") == []
    assert place_after([2, 5, 9], 5) == 1
    assert place_after([2, 5, 9], 10) == 0


# -- the raw text


def test_the_raw_text_is_the_file_and_grows_in_place(show: Show, qtbot: QtBot) -> None:
    text = turns(3) + turn(4, "USER", "\U0001f600 Zoë\tx")
    pane = show(text)
    pane.tab = "raw"
    assert pane.raw.toPlainText() == text
    changes: list[tuple[int, int, int]] = []
    pane.raw.document().contentsChange.connect(lambda *change: changes.append(change))
    pane.book.begin(header(5, "INTERFACE") + "\U0001f600")
    pane.raw.update_now()
    pane.book.write(" on")
    pane.raw.update_now()
    assert pane.raw.toPlainText() == pane.book.shown
    assert changes[-1][1:] == (0, 3)
    assert not pane.raw.document().isUndoRedoEnabled()


def test_a_hidden_tab_costs_nothing_until_it_is_shown(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(3))
    assert pane.raw.toPlainText() == ""
    pane.tab = "raw"
    assert pane.tab == "raw"
    assert pane.raw.toPlainText() == turns(3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(st.lists(st.text("a\r\n\U0001f600é\x00\u2028(T~)", max_size=8), max_size=6))
def test_raw_positions_are_those_of_the_items(qtbot: QtBot, tmp_path: Path, pieces: list[str]) -> None:
    (tmp_path / TRANSCRIPT).write_text(turns(1))
    pane = TranscriptPane(Book(tmp_path))
    pane.book.begin(header(2, "USER"))
    pane.raw.update_now()
    for piece in pieces:
        pane.book.write(piece)
        pane.raw.update_now()
    for index, item in enumerate(pane.book.items):
        begin, end = pane.raw.span(index)
        cursor = QTextCursor(pane.raw.document())
        cursor.setPosition(begin)
        cursor.setPosition(end, QTextCursor.MoveMode.KeepAnchor)
        found = cursor.selectedText().replace("\u2029", "\n")
        assert len(found.encode("utf-16-le")) // 2 == end - begin
        if isinstance(item, Turn):
            assert found.startswith(item.head.rstrip())
    pane.book.deleteLater()
    pane.deleteLater()


# -- the rest of the desktop


def test_the_text_grows_and_shrinks_in_both_tabs(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(3))
    usual = pane.rendered.font().pointSizeF()
    wheel(pane, 1, Qt.KeyboardModifier.ControlModifier)
    pane.zoom(2)
    assert pane.rendered.font().pointSizeF() > 1.3 * usual
    assert pane.raw.font().pointSizeF() == pytest.approx(pane.rendered.font().pointSizeF(), rel=0.01)
    em = pane.rendered.renderer.em
    qtbot.waitUntil(lambda: pane.rendered.renderer.em > em)
    pane.zoom(0)
    assert pane.rendered.font().pointSizeF() == pytest.approx(usual, rel=0.01)


def test_a_dark_desktop_is_followed_at_once(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(3))
    assert not pane.rendered.renderer.theme.dark
    dark = QPalette(QColor("#202225"))
    pane.setPalette(dark)
    qtbot.waitUntil(lambda: pane.rendered.renderer.theme.dark)
    assert "says 3" in drawn(pane)


def test_only_pictures_of_formulas_are_loaded(show: Show, tmp_path: Path) -> None:
    pane = show(turn(1, "USER", "$x$"))
    picture = tmp_path / "picture.png"
    image = QImage(4, 4, QImage.Format.Format_RGB32)
    image.save(str(picture))
    kind = QTextDocument.ResourceType.ImageResource.value
    for url in (QUrl.fromLocalFile(str(picture)), QUrl("http://example.org/x.png"), QUrl("data:image/png;base64,xx")):
        found = pane.rendered.loadResource(kind, url)
        assert isinstance(found, QImage)
        assert found.isNull()
    page = QTextDocument.ResourceType.HtmlResource.value
    assert pane.rendered.loadResource(page, QUrl.fromLocalFile("/etc/passwd")) == b""


def test_a_link_is_told_and_not_opened(show: Show, qtbot: QtBot) -> None:
    pane = show(turn(1, "USER", "[here](https://example.org/a)"))
    pane.rendered.update_now()
    link = pane.rendered.text.find("here")
    link.setPosition(link.selectionStart() + 2)
    with qtbot.waitSignal(pane.link_clicked) as signal:
        qtbot.mouseClick(pane.rendered.port, Qt.MouseButton.LeftButton, pos=pane.rendered.cursorRect(link).center())
    assert signal.args == [QUrl("https://example.org/a")]
    assert "here" in drawn(pane)
    assert pane.chosen == -1


def test_files_that_are_dropped_are_told(show: Show, qtbot: QtBot, tmp_path: Path) -> None:
    pane = show(turns(1))
    file = tmp_path / "notes.txt"
    file.write_text("notes")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(file)), QUrl.fromLocalFile(str(tmp_path)), QUrl("https://example.org/x")])
    with qtbot.waitSignal(pane.files_dropped) as signal:
        pane.dropEvent(drop(data))
    assert signal.args == [[file]]
    for view in (pane.rendered, pane.raw):
        assert not view.acceptDrops()
        assert not view.port.acceptDrops()


def drop(data: QMimeData) -> QDropEvent:
    return QDropEvent(
        QPointF(9, 9),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
        QEvent.Type.Drop,
    )


def test_everything_has_a_name_for_those_who_cannot_see_it(show: Show) -> None:
    pane = show(turns(1))
    pane.show_search()
    for widget in (pane.rendered, pane.raw, pane.search_bar.field, *pane.findChildren(QPushButton)):
        assert widget.accessibleName()


def test_all_that_was_read_is_drawn(show: Show, qtbot: QtBot) -> None:
    text = turns(30)
    pane = show(text)
    filled(qtbot, pane, 30)
    assert drawn(pane).count("USER") == len(parse(text))
