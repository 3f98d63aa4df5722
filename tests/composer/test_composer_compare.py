"""Two branches side by side: nothing of either is lost, and exactly what differs is marked."""

from __future__ import annotations

import time

import pytest
from cluster import busy
from hypothesis import given
from hypothesis import strategies as st
from PyQt6.QtCore import Qt, QUrl
from PyQt6.QtGui import QColor, QPalette, QTextCursor
from PyQt6.QtWidgets import QPushButton
from pytestqt.qtbot import QtBot

from composer.branching import differences
from composer.branching.compare import MOST_SHOWN, SHOWN_AT_ONCE, CompareDialog
from composer.branching.differences import Alike, Pair, compare, said_by, word_spans
from composer.reading.theme import theme_of
from ssmprov.transcript import Item, turn, written

COMMON = "".join(turn(n, "USER" if n % 2 else "BOT", f"shared {n}") for n in range(1, 9))
LEFT = COMMON + turn(9, "USER", "about the sea") + turn(10, "BOT", "a keeper") + turn(11, "USER", "and?")
RIGHT = COMMON + turn(9, "USER", "about the <storm>") + turn(10, "BOT", "a keeper")

TURNS = st.lists(
    st.one_of(
        st.builds(turn, st.integers(1, 4), st.sampled_from(["USER", "BOT"]), st.text("ab \n", max_size=6)),
        st.sampled_from(["!primed\n", "loose text\n\n", "(Turn 5) [USER]: open"]),
    ),
    max_size=8,
).map("".join)


def sides(blocks: list[Alike | Pair]) -> tuple[list[Item], list[Item]]:
    left: list[Item] = []
    right: list[Item] = []
    for block in blocks:
        if isinstance(block, Alike):
            left += block.items
            right += block.items
        else:
            left += [block.left] if block.left is not None else []
            right += [block.right] if block.right is not None else []
    return left, right


@pytest.fixture
def dialog(qtbot: QtBot) -> CompareDialog:
    made = CompareDialog()
    qtbot.addWidget(made)
    made.show_texts("live", LEFT, "live.1", RIGHT)
    made.show()
    return made


def marked(dialog: CompareDialog, colour: str) -> list[str]:
    """The pieces of text that stand on a colour."""
    document = dialog.view.document()
    assert document is not None
    found = []
    block = document.begin()
    while block.isValid():
        pieces, before = block.begin(), False
        while not pieces.atEnd():
            piece, last = pieces.fragment(), before
            before = False
            if piece.charFormat().background().color() == QColor(colour) and piece.charFormat().hasProperty(
                piece.charFormat().Property.BackgroundBrush
            ):
                before = True
                found.append(found.pop() + piece.text() if last else piece.text())
            pieces += 1
        block = block.next()
    return found


@given(TURNS, TURNS)
def test_the_blocks_hold_all_of_both_texts(left: str, right: str) -> None:
    blocks = compare(left, right)
    one, other = sides(blocks)
    assert (written(one), written(other)) == (left, right)
    for block in blocks:
        if isinstance(block, Pair):
            assert block.left is not None or block.right is not None
            assert block.left is None or block.right is None or block.left.text != block.right.text
    assert (left == right) == (not any(isinstance(block, Pair) for block in blocks))


@given(st.text("ab .\n", max_size=30), st.text("ab .\n", max_size=30))
def test_without_the_marked_words_two_texts_are_alike(left: str, right: str) -> None:
    rest = []
    for text, spans in zip((left, right), word_spans(left, right), strict=True):
        kept, at = [], 0
        for begin, end in spans:
            assert at <= begin < end <= len(text)
            kept.append(text[at:begin])
            at = end
        rest.append("".join([*kept, text[at:]]))
    assert rest[0] == rest[1]


def test_too_many_words_are_marked_in_one_piece() -> None:
    left, right = "same a b same", "same c d same"
    assert word_spans(left, right, 2) == (((5, 8),), ((5, 8),))
    assert word_spans(left, right) == (((5, 6), (7, 8)), ((5, 6), (7, 8)))


def test_long_unlike_texts_are_compared_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "MOST_ITEMS", 4)
    left = turn(1, "U", "a") + turn(2, "U", "b") + turn(3, "U", "c")
    right = turn(1, "U", "x") + turn(1, "U", "a") + turn(2, "U", "y")
    pairs = [block for block in compare(left, right) if isinstance(block, Pair)]
    said = [(said_by(pair.left), said_by(pair.right)) for pair in pairs if pair.left and pair.right]
    assert said == [("a", "x"), ("b", "a"), ("c", "y")]


def test_lines_that_stand_before_every_turn_are_no_difference() -> None:
    left, right = ("".join(f"!primed\n{turn(n, 'U', f'{side}{n}')}" for n in range(300)) for side in "ab")
    blocks = compare(left, right)
    assert sum(isinstance(block, Pair) for block in blocks) == 300
    one, other = sides(blocks)
    assert (written(one), written(other)) == (left, right)


def test_a_shared_beginning_is_one_line_that_unfolds(dialog: CompareDialog, qtbot: QtBot) -> None:
    assert "▸ 8 turns are the same" in dialog.view.toPlainText()
    assert "shared 3" not in dialog.view.toPlainText()
    dialog.view.anchorClicked.emit(QUrl("fold:0"))
    assert "▾ 8 turns are the same" in dialog.view.toPlainText()
    assert "shared 3" in dialog.view.toPlainText()
    dialog.view.anchorClicked.emit(QUrl("fold:0"))
    assert "shared 3" not in dialog.view.toPlainText()


def test_the_fold_is_reached_by_keys_alone(dialog: CompareDialog, qtbot: QtBot) -> None:
    dialog.view.setFocus()
    qtbot.keyClick(dialog.view, Qt.Key.Key_Tab)
    qtbot.keyClick(dialog.view, Qt.Key.Key_Return)
    assert "shared 3" in dialog.view.toPlainText()


def test_the_words_that_differ_are_marked_on_each_side(dialog: CompareDialog) -> None:
    theme = theme_of(dialog.palette())
    assert marked(dialog, theme.removed) == ["sea", "Turn 11 USER", "and?"]
    assert marked(dialog, theme.added) == ["<storm>"]
    assert "Nothing on this side" in dialog.view.toPlainText()


def test_f7_walks_the_differences_round_and_round(dialog: CompareDialog, qtbot: QtBot) -> None:
    assert dialog.differences == 2
    assert dialog._count.text() == "Difference 1 of 2"
    qtbot.keyClick(dialog, Qt.Key.Key_F7)
    assert dialog._count.text() == "Difference 2 of 2"
    qtbot.keyClick(dialog, Qt.Key.Key_F7)
    assert dialog._count.text() == "Difference 1 of 2"
    qtbot.keyClick(dialog, Qt.Key.Key_F7, Qt.KeyboardModifier.ShiftModifier)
    assert dialog._count.text() == "Difference 2 of 2"


def test_a_far_difference_is_scrolled_to(dialog: CompareDialog, qtbot: QtBot) -> None:
    left = "".join(turn(n, "U", f"a{n}") for n in range(SHOWN_AT_ONCE + 50))
    right = "".join(turn(n, "U", f"b{n}") for n in range(SHOWN_AT_ONCE + 50))
    dialog.show_texts("one", left, "other", right)
    assert f"a{SHOWN_AT_ONCE - 1}" in dialog.view.toPlainText()
    assert f"a{SHOWN_AT_ONCE}" not in dialog.view.toPlainText()
    assert "Show more (50 differences left)" in dialog.view.toPlainText()
    qtbot.keyClick(dialog, Qt.Key.Key_F7, Qt.KeyboardModifier.ShiftModifier)
    assert f"a{SHOWN_AT_ONCE + 49}" in dialog.view.toPlainText()
    bar = dialog.view.verticalScrollBar()
    assert bar is not None
    qtbot.waitUntil(lambda: bar.value() == bar.maximum() > 5000)


def test_more_rows_come_with_a_link(dialog: CompareDialog) -> None:
    dialog.show_texts("a", "".join(turn(n, "U", f"a{n}") for n in range(SHOWN_AT_ONCE + 1)), "b", "")
    dialog.view.anchorClicked.emit(QUrl("more:"))
    assert f"a{SHOWN_AT_ONCE}" in dialog.view.toPlainText()
    assert "Show more" not in dialog.view.toPlainText()


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_side_can_be_chosen(dialog: CompareDialog, qtbot: QtBot, side: str) -> None:
    (button,) = (b for b in dialog.findChildren(QPushButton) if b.accessibleName() == f"Continue with the {side} one")
    with qtbot.waitSignal(dialog.go_wanted) as told:
        qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert told.args == [side]


def test_alike_texts_say_so(dialog: CompareDialog) -> None:
    dialog.show_texts("a", LEFT, "b", LEFT)
    assert dialog._count.text() == "Both are the same."
    dialog.next_difference()
    dialog.show_texts("a", "", "b", "")
    assert dialog._count.text() == "Both are empty."


def test_a_turn_that_is_only_open_on_one_side_differs(dialog: CompareDialog) -> None:
    dialog.show_texts("a", turn(1, "U", "x"), "b", "(Turn 1) [U]: x")
    assert marked(dialog, theme_of(dialog.palette()).added) == ["Turn 1 U (open)"]


def test_in_a_huge_turn_the_place_of_the_change_is_shown(dialog: CompareDialog) -> None:
    body = "word " * MOST_SHOWN
    dialog.show_texts("a", turn(1, "U", body + "left end"), "b", turn(1, "U", body + "right end"))
    text = dialog.view.toPlainText()
    assert "left end" in text
    assert "right end" in text
    assert len(text) < 3 * MOST_SHOWN


def test_markup_control_characters_and_broken_bytes_are_text(dialog: CompareDialog) -> None:
    dialog.show_texts("<b>a</b>", turn(1, "U", "<i>x</i>\x00\udcff"), "b", turn(1, "U", "&amp;"))
    assert "<i>x</i>␀\ufffd" in dialog.view.toPlainText()
    assert "&amp;" in dialog.view.toPlainText()


def test_a_new_palette_is_drawn_at_once(dialog: CompareDialog, qtbot: QtBot) -> None:
    dark = QPalette(QColor("#2b2b2e"))
    dark.setColor(QPalette.ColorRole.WindowText, QColor("white"))
    dark.setColor(QPalette.ColorRole.Base, QColor("#1f1f22"))
    dark.setColor(QPalette.ColorRole.Text, QColor("white"))
    before = theme_of(dialog.palette()).removed
    dialog.setPalette(dark)
    after = theme_of(dark).removed
    assert after != before
    assert "sea" in marked(dialog, after)
    assert marked(dialog, before) == []


def test_the_text_can_be_selected_but_not_changed(dialog: CompareDialog, qtbot: QtBot) -> None:
    before = dialog.view.toPlainText()
    dialog.view.moveCursor(QTextCursor.MoveOperation.End)
    qtbot.keyClicks(dialog.view, "abc")
    assert dialog.view.toPlainText() == before


def test_a_megabyte_of_differences_is_compared_quickly(dialog: CompareDialog) -> None:
    left = "".join(turn(n, "U", "x y z " * 200 + str(n)) for n in range(1000))
    right = "".join(turn(n, "U", "x w z " * 200 + str(n)) for n in range(1000))
    begun = time.perf_counter()
    dialog.show_texts("a", left, "b", right)
    assert time.perf_counter() - begun < 10 * busy()  # 1 s on a quiet machine
    assert dialog.differences == 1000
