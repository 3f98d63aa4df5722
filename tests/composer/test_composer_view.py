"""The transcript on the screen: what is drawn of it, how it is followed and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panes import Show, drawn, filled, turns, wheel
from PyQt6.QtCore import Qt
from PyQt6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from composer.reading.book import Book
from composer.reading.transcript_pane import TranscriptPane
from ssmprov.transcript import header, turn
from transcripts.record import TRANSCRIPT

# -- what is drawn


def test_an_empty_transcript_says_what_to_do(show: Show, qtbot: QtBot) -> None:
    pane = show("")
    assert "press Shift+Enter" in drawn(pane)
    pane.book.begin(header(1, "USER") + "hello")
    assert drawn(pane).split("\n") == ["USER 1", "hello", "\u258d"]


def test_the_last_200_turns_are_drawn_and_more_on_demand(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(520))
    filled(qtbot, pane, 200)
    assert pane.rendered.loaded == range(320, 520)
    assert drawn(pane).startswith("Load 200 earlier turns (320 above)")
    assert pane.following
    pane.load_earlier()
    filled(qtbot, pane, 400)
    assert drawn(pane).startswith("Load 120 earlier turns (120 above)")
    pane.load_earlier()
    filled(qtbot, pane, 520)
    assert drawn(pane).startswith("USER 1\nsays 1")
    assert [line for line in drawn(pane).split("\n") if "says" in line] == [f"says {n}" for n in range(1, 521)]


def test_loading_earlier_turns_moves_nothing_that_is_read(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(320))
    filled(qtbot, pane, 200)
    pane.rendered.bar.setValue(100)
    assert not pane.following
    before, place = pane.rendered.top, pane.rendered.extent(pane.rendered.top)[0] - pane.rendered.bar.value()
    pane.load_earlier()
    filled(qtbot, pane, 320)
    assert pane.rendered.top == before
    assert abs(pane.rendered.extent(before)[0] - pane.rendered.bar.value() - place) <= 2


def test_the_link_at_the_top_loads_earlier_turns(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(300))
    filled(qtbot, pane, 200)
    view = pane.rendered
    view.bar.setValue(0)
    link = view.text.find("Load 100")
    link.setPosition(link.selectionStart() + 3)
    qtbot.mouseClick(view.port, Qt.MouseButton.LeftButton, pos=view.cursorRect(link).center())
    filled(qtbot, pane, 300)


def test_what_streams_is_drawn_at_the_end_and_the_rest_left_alone(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(5))
    view = pane.rendered
    view.update_now()
    chosen = view.text.find("says 3")
    view.setTextCursor(chosen)
    removed: list[int] = []
    view.text.contentsChange.connect(lambda at, gone, _: removed.append(at) if gone > 1 else None)
    pane.book.begin(header(6, "INTERFACE") + "Well")
    for word in (" then", ",\n\n", "on", " it", " *goes*"):
        pane.book.write(word)
        view.update_now()
    assert drawn(pane).endswith("INTERFACE 6\nWell then,\non it goes\n\u258d")
    assert view.textCursor().selectedText() == "says 3"
    assert min(removed, default=10_000) > view.text.find("says 5").position()


def test_pieces_of_a_stream_are_gathered(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(5))
    pane.rendered.update_now()
    times: list[bool] = []
    pane.rendered.drawn.connect(lambda: times.append(True))
    pane.book.begin(header(6, "INTERFACE") + "Well")
    for _ in range(50):
        pane.book.write(" on")
    qtbot.waitUntil(lambda: "on on" in pane.rendered.toPlainText())
    assert len(times) == 1


PIECES = st.lists(
    st.sampled_from(
        [
            *("a *b*", " ", "\n", "\n\n", "- c", "```\n", "$x$", "$$", "| a |\n|--|\n", "# H", "1. d", "> e"),
            *("~~~(e", "nd)~~~\n\n"),
        ]
    ),
    min_size=1,
    max_size=14,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(PIECES)
def test_a_turn_that_streamed_looks_as_it_does_when_opened(qtbot: QtBot, tmp_path: Path, pieces: list[str]) -> None:
    path = tmp_path / TRANSCRIPT
    path.write_text(turns(2))
    pane = TranscriptPane(Book(tmp_path))
    pane.rendered.update_now()
    pane.book.begin(header(3, "INTERFACE"))
    for piece in pieces:
        pane.book.write(piece)
        pane.rendered.update_now()
    path.write_text(pane.book.shown)
    pane.book.end()
    pane.rendered.update_now()
    opened = TranscriptPane(Book(tmp_path))
    opened.rendered.update_now()
    assert pane.rendered.toHtml() == opened.rendered.toHtml()
    pane.raw.update_now()
    assert pane.raw.toPlainText() == pane.book.shown
    for one in (pane, opened):
        one.book.deleteLater()
        one.deleteLater()


def test_a_cut_transcript_is_drawn_as_it_is_now(show: Show, tmp_path: Path, qtbot: QtBot) -> None:
    pane = show(turns(8))
    pane.rendered.update_now()
    (tmp_path / TRANSCRIPT).write_text(turns(3))
    qtbot.waitUntil(lambda: "says 4" not in drawn(pane))
    assert "says 3" in drawn(pane)
    assert pane.rendered.text.find("says 3").block().next().isValid()
    (tmp_path / TRANSCRIPT).unlink()
    qtbot.waitUntil(lambda: "There are no turns yet" in drawn(pane))


def test_a_rule_stands_after_each_closed_turn_also_when_others_follow(show: Show, tmp_path: Path, qtbot: QtBot) -> None:
    pane = show(turns(2))
    pane.rendered.update_now()
    for number in (3, 4):
        with (tmp_path / TRANSCRIPT).open("a") as file:
            file.write(turns(1, number))
        pane.book.refresh()
        pane.rendered.update_now()
    assert pane.rendered.toHtml().count("<hr") == 4


# -- following


def test_the_view_follows_until_the_reader_scrolls_up(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(40))
    filled(qtbot, pane, 40)
    bar = pane.rendered.bar
    pane.book.begin(header(41, "INTERFACE") + "x")
    for _ in range(5):
        pane.book.write("\n\nmore")
        pane.rendered.update_now()
        assert bar.value() == bar.maximum()
    wheel(pane, 3)
    assert not pane.following
    place = bar.value()
    pane.book.write("\n\nmore" * 10)
    pane.rendered.update_now()
    assert bar.value() == place < bar.maximum()
    button = next(b for b in pane.findChildren(QPushButton) if "end" in b.text())
    assert button.isVisible()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert pane.following
    assert bar.value() == bar.maximum()
    assert not button.isVisible()
    pane.book.write("\n\nlast" * 10)
    pane.rendered.update_now()
    assert bar.value() == bar.maximum()


def test_keys_scroll_and_the_end_key_follows_again(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(40))
    filled(qtbot, pane, 40)
    qtbot.keyClick(pane.rendered, Qt.Key.Key_PageUp)
    assert not pane.following
    for _ in range(3):
        qtbot.keyClick(pane.rendered, Qt.Key.Key_PageDown)
    assert pane.following


@pytest.mark.parametrize("tab", ["rendered", "raw"])
def test_a_resized_view_stays_where_it_was(show: Show, qtbot: QtBot, tab: str) -> None:
    pane = show("".join(turn(n, "USER", f"{n} " + "word " * 80) for n in range(1, 40)))
    pane.tab = tab
    filled(qtbot, pane, 39) if tab == "rendered" else None
    pane.resize(350, 300)
    view = pane.rendered if tab == "rendered" else pane.raw
    assert view.bar.value() == view.bar.maximum()
    if tab == "rendered":
        pane.top = 12
        pane.resize(700, 500)
        assert abs(pane.rendered.extent(12)[0] - view.bar.value()) < 40
        assert pane.top in (11, 12)


def test_the_place_is_restored(show: Show, qtbot: QtBot) -> None:
    pane = show(turns(600))
    assert pane.top == -1
    pane.top = 40
    assert pane.top == 40
    assert not pane.following
    pane.top = -1
    assert pane.following
    assert pane.rendered.loaded.stop == 600
