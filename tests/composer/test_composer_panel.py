from __future__ import annotations

from pathlib import Path

import pytest
from PyQt6.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from PyQt6.QtGui import QDragEnterEvent, QDropEvent, QWheelEvent
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QApplication, QWidget
from pytestqt.qtbot import QtBot

from composer.session import Session, load, save
from composer.writing.choice_box import EDIT
from composer.writing.compose_panel import BUSY, ComposePanel
from composer.writing.draft import NOTHING, Draft
from ssmprov.transcript import FENCE, HALF_FENCE

SHIFT, CTRL, NONE = (
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.NoModifier,
)
USER, INTERFACE = "[USER]: ", "[INTERFACE]: "


class Shown:
    """A panel on a window of its own, and what it has said."""

    def __init__(self, panel: ComposePanel) -> None:
        self.panel = panel
        self.sent: list[Draft] = []
        self.troubles: list[str] = []
        self.files: list[Path] = []
        self.stops = 0
        panel.sent.connect(self.sent.append)
        panel.trouble.connect(self.troubles.append)
        panel.files_dropped.connect(self.files.extend)
        panel.stop_wanted.connect(self.stop)

    def stop(self) -> None:
        self.stops += 1


@pytest.fixture
def shown(tmp_path: Path, qtbot: QtBot) -> Shown:
    panel = ComposePanel(tmp_path)
    qtbot.addWidget(panel)
    panel.resize(800, 300)
    with qtbot.waitActive(panel):
        panel.show()
        panel.activateWindow()
    panel.focus_prompt()
    return Shown(panel)


def test_shift_enter_sends_what_the_lists_say(shown: Shown, qtbot: QtBot) -> None:
    qtbot.keyClicks(shown.panel.prompt, "hello")
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Return)
    qtbot.keyClicks(shown.panel.prompt, "there")
    assert shown.sent == []
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Return, SHIFT)
    assert shown.sent == [Draft("hello\nthere", opening=USER, divider=FENCE, reply=INTERFACE)]


@pytest.mark.parametrize(
    ("key", "held", "others"), [("enter", NONE, (SHIFT, CTRL)), ("ctrl+enter", CTRL, (NONE, SHIFT))]
)
def test_another_key_may_send(
    shown: Shown,
    qtbot: QtBot,
    key: str,
    held: Qt.KeyboardModifier,
    others: tuple[Qt.KeyboardModifier, Qt.KeyboardModifier],
) -> None:
    shown.panel.send_key = key
    assert key.replace("+", "") in shown.panel.prompt.placeholderText().lower().replace("+", "")
    qtbot.keyClicks(shown.panel.prompt, "a")
    for other in others:
        qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Return, other)
    assert shown.sent == []
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Enter, held | Qt.KeyboardModifier.KeypadModifier)
    assert [draft.text for draft in shown.sent] == ["a\n\n"]


def test_an_unknown_send_key_changes_nothing(shown: Shown) -> None:
    shown.panel.send_key = "alt+x"
    assert shown.panel.send_key == "shift+enter"


@pytest.mark.parametrize(
    ("button", "draft"),
    [
        ("Send", Draft("hi", bang="!a", opening=USER, divider=FENCE, reply=INTERFACE)),
        ("Half step", Draft("hi", bang="!a", opening=USER, divider=HALF_FENCE)),
        ("Full step", Draft("hi", bang="!a", opening=USER, divider=FENCE, reply=INTERFACE)),
        ("Raw", Draft("hi", bang="!a")),
    ],
)
def test_each_button_sends_its_kind(shown: Shown, qtbot: QtBot, button: str, draft: Draft) -> None:
    panel = shown.panel
    qtbot.keyClicks(panel.prompt, "hi")
    qtbot.keyClicks(panel.bang, "!a")
    buttons = {b.text(): b for b in (panel.send_button, panel.half_button, panel.full_button, panel.raw_button)}
    qtbot.mouseClick(buttons[button], Qt.MouseButton.LeftButton)
    assert shown.sent == [draft]


def test_a_full_step_says_which_role_it_needs(shown: Shown, qtbot: QtBot) -> None:
    qtbot.keyClicks(shown.panel.prompt, "hi")
    shown.panel.boxes["s3"].choose("")
    shown.panel.send_full()
    shown.panel.boxes["s1"].choose("")
    shown.panel.send_half()
    assert shown.sent == []
    assert "under Reply" in shown.troubles[0]
    assert "under From" in shown.troubles[1]


def test_an_invalid_draft_is_never_sent_and_says_why(shown: Shown, qtbot: QtBot) -> None:
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Return, SHIFT)
    assert shown.troubles == [NOTHING]
    qtbot.keyClicks(shown.panel.prompt, "hi")
    assert shown.troubles == [NOTHING, ""]  # taken back as soon as one writes
    qtbot.keyClicks(shown.panel.bang, "!a b c d")
    qtbot.keyClick(shown.panel.bang, Qt.Key.Key_Return)
    assert shown.sent == []
    assert "three words" in shown.troubles[-1]
    shown.panel.bang.clear()
    shown.panel.send()
    assert len(shown.sent) == 1
    assert shown.troubles[-1] == ""


def test_text_is_sent_to_the_character(shown: Shown, qtbot: QtBot) -> None:
    text = "a\u00a0b\u2028c\td — 𝔘"
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    clipboard.setText(text)
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_V, CTRL)
    qtbot.keyClick(shown.panel.prompt, Qt.Key.Key_Return, SHIFT)
    assert shown.sent[0].text == text


def test_while_a_turn_runs_nothing_is_sent_and_one_writes_ahead(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    assert not panel.stop_button.isEnabled()
    panel.set_busy(True)
    qtbot.keyClicks(panel.prompt, "next")
    qtbot.keyClick(panel.prompt, Qt.Key.Key_Return, SHIFT)
    qtbot.mouseClick(panel.send_button, Qt.MouseButton.LeftButton)
    assert shown.sent == []
    assert shown.troubles == [BUSY]
    qtbot.mouseClick(panel.stop_button, Qt.MouseButton.LeftButton)
    assert shown.stops == 1
    panel.set_busy(False)
    assert shown.troubles == [BUSY, ""]
    assert panel.prompt.text == "next"


def test_accepting_clears_the_prompt_but_keeps_what_was_written_since(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    qtbot.keyClicks(panel.prompt, "one")
    panel.send()
    panel.accept()
    assert panel.prompt.text == ""
    qtbot.keyClicks(panel.prompt, "two")
    panel.send()
    qtbot.keyClicks(panel.prompt, " and more")
    panel.accept()
    assert panel.prompt.text == " and more"
    qtbot.keyClick(panel.prompt, Qt.Key.Key_Z, CTRL)
    assert panel.prompt.text == "two and more"  # it can be undone


def test_a_failed_turn_gives_its_text_back_where_there_is_room(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    qtbot.keyClicks(panel.prompt, "one")
    panel.send()
    panel.accept()
    panel.restore(shown.sent[0])
    assert panel.prompt.text == "one"
    panel.restore(Draft("other"))
    assert panel.prompt.text == "one"


def test_ctrl_up_and_down_walk_through_what_was_sent(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    for text in ("one", "two\nlines", "two\nlines"):
        panel.prompt.set_text(text)
        panel.send()
        panel.accept()
    qtbot.keyClicks(panel.prompt, "unsent")
    seen = []
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Down):
        qtbot.keyClick(panel.prompt, key, CTRL)
        seen.append(panel.prompt.text)
    assert seen == ["two\nlines", "one", "one", "two\nlines", "unsent", "unsent"]


def test_the_prompt_grows_with_its_text_within_bounds(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    panel.resize(800, 900)
    line = panel.prompt.fontMetrics().lineSpacing()
    heights = []
    for lines in (1, 3, 6, 10, 40):
        panel.prompt.set_text("\n".join("x" * lines))
        heights.append(panel.prompt.minimumHeight())
    assert heights[0] == heights[1] < heights[2] < heights[3] == heights[4]
    assert heights[2] - heights[1] == pytest.approx(3 * line, abs=3)


def test_focus_goes_from_the_prompt_through_lists_and_buttons_to_the_bang_line(shown: Shown, qtbot: QtBot) -> None:
    panel = shown.panel
    seen = []
    for _ in range(9):
        focused = QApplication.focusWidget()
        assert isinstance(focused, QWidget)
        seen.append(focused.accessibleName())
        QTest.keyClick(focused, Qt.Key.Key_Tab)
    assert seen == ["Text of the turn", "From", "Then", "Reply", "Send", "Half step", "Full step", "Raw", "Bang line"]
    assert QApplication.focusWidget() is panel.prompt


def test_keys_alone_choose_in_a_list_and_never_open_the_editor_by_chance(shown: Shown, qtbot: QtBot) -> None:
    box = shown.panel.boxes["s2"]
    box.setFocus()
    for key in (Qt.Key.Key_Up, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_End):
        qtbot.keyClick(box, key)
    qtbot.keyClicks(box, "E")
    assert box.chosen == FENCE
    assert box.currentText() == "full step"
    assert shown.panel._editors == {}
    qtbot.keyClick(box, Qt.Key.Key_Up)
    assert box.chosen == HALF_FENCE


def test_the_last_entry_opens_the_editor_of_its_file(shown: Shown, qtbot: QtBot) -> None:
    box = shown.panel.boxes["s1"]
    assert box.itemText(box.count() - 1) == EDIT
    box.showPopup()
    view = box.view()
    assert view is not None
    qtbot.waitUntil(view.isVisible)
    qtbot.keyClick(view, Qt.Key.Key_End)
    qtbot.keyClick(view, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: "s1" in shown.panel._editors)
    assert box.currentText() == "USER"
    editor = shown.panel._editors["s1"]
    assert editor.isVisible()
    assert not editor.isModal()
    editor.reject()
    qtbot.waitUntil(lambda: shown.panel._editors == {})


def test_the_wheel_over_a_list_without_focus_changes_nothing(shown: Shown) -> None:
    box = shown.panel.boxes["s1"]
    event = QWheelEvent(
        QPointF(5, 5), QPointF(box.mapToGlobal(QPoint(5, 5))), QPoint(0, 0), QPoint(0, -120),
        Qt.MouseButton.NoButton, NONE, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(box, event)
    assert box.chosen == USER


def test_what_was_chosen_stays_when_the_file_changes(shown: Shown, qtbot: QtBot, tmp_path: Path) -> None:
    with qtbot.waitSignal(shown.panel.choices.changed):
        (tmp_path / ".s1.txt").write_text('"[NEW]: "\n[bad\n')
    box = shown.panel.boxes["s1"]
    assert [box.itemText(i) for i in range(box.count()) if box.itemText(i)] == ["(none)", "NEW", "USER", EDIT]
    assert box.chosen == USER
    assert ".s1.txt, line 2" in shown.troubles[-1]
    with qtbot.waitSignal(shown.panel.choices.changed):
        (tmp_path / ".s1.txt").write_text('"[NEW]: "\n')
    assert shown.troubles[-1] == ""


def test_a_bad_list_at_the_start_is_told(tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / ".s3.txt").write_text("oops")
    panel = ComposePanel(tmp_path)
    qtbot.addWidget(panel)
    with qtbot.waitSignal(panel.trouble) as told:
        pass
    assert ".s3.txt, line 1" in told.args[0]


def drop(target: QWidget, data: QMimeData) -> None:
    how = (Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, NONE)
    for event in (QDragEnterEvent(QPoint(5, 5), *how), QDropEvent(QPointF(5, 5), *how)):
        QApplication.sendEvent(target, event)
        assert event.isAccepted()


@pytest.mark.parametrize("on", ["prompt", "panel"])
def test_a_dropped_file_is_handed_on_and_not_written_into_the_prompt(shown: Shown, tmp_path: Path, on: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("text")
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    viewport = shown.panel.prompt.viewport()
    assert viewport is not None
    drop(viewport if on == "prompt" else shown.panel, data)
    assert shown.files == [path]
    assert shown.panel.prompt.text == ""


def test_a_dropped_folder_is_refused_with_a_sentence(shown: Shown, tmp_path: Path) -> None:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(tmp_path))])
    drop(shown.panel, data)
    assert shown.files == []
    assert "not folders" in shown.troubles[-1]


def test_dropped_text_is_inserted(shown: Shown) -> None:
    data = QMimeData()
    data.setText("dragged")
    viewport = shown.panel.prompt.viewport()
    assert viewport is not None
    drop(viewport, data)
    assert shown.panel.prompt.text == "dragged"
    assert shown.files == []


def test_the_state_comes_back_in_another_panel(shown: Shown, qtbot: QtBot, tmp_path: Path) -> None:
    panel = shown.panel
    panel.boxes["s1"].choose("[ODD]: ")
    panel.boxes["s2"].choose(HALF_FENCE)
    panel.boxes["s3"].choose("")
    panel.bang.setText("!a b")
    panel.prompt.set_text("unsent\u00a0text\n")
    other = ComposePanel(tmp_path)
    qtbot.addWidget(other)
    other.restore_state(panel.state())
    assert other.state() == panel.state()
    assert other.draft() == Draft("unsent\u00a0text\n", bang="!a b", opening="[ODD]: ", divider=HALF_FENCE)


def test_a_state_that_does_not_fit_is_passed_over(shown: Shown) -> None:
    before = shown.panel.state()
    shown.panel.restore_state({"s1": 7, "text": None, "bang": ["x"], "more": "y"})
    assert shown.panel.state() == before


def test_half_a_character_does_not_keep_the_state_from_being_saved(shown: Shown, tmp_path: Path) -> None:
    shown.panel.prompt.set_text("a\ud800b")
    assert save(tmp_path, Session(compose=shown.panel.state())) == ""
    assert load(tmp_path).compose["text"] == "a?b"


def test_the_count_follows_the_text(shown: Shown, qtbot: QtBot) -> None:
    assert shown.panel.count.text() == ""
    qtbot.keyClicks(shown.panel.prompt, "a")
    assert shown.panel.count.text() == "1 character"
    shown.panel.prompt.set_text("x" * 1234)
    assert shown.panel.count.text() == "1,234 characters"
