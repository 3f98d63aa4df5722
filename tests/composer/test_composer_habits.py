"""A person's habits: keys, sessions, files, models and settings, in the whole window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, rwkv_toml, scripted_toml
from PyQt6.QtCore import QMimeData, QObject, QPoint, QPointF, Qt, QUrl, pyqtSlot
from PyQt6.QtGui import QDesktopServices, QDropEvent, QKeySequence
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import (
    QAbstractButton,
    QAbstractSlider,
    QAbstractSpinBox,
    QApplication,
    QComboBox,
    QLineEdit,
    QMenu,
    QPlainTextEdit,
    QWidget,
)
from pytestqt.qtbot import QtBot
from stage import Stage, choose, context_of, offer, opened, own, own_text

from clients import Client
from composer import keeping
from composer.actions import ENTRIES
from ssmprov.transcript import FENCE, half_step, turn

fresh = itertools.count(1)


@pytest.fixture
def stage(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> Iterator[Stage]:
    with opened(qtbot, talk.endpoint, tmp_path, context=f"habit{next(fresh)}") as found:
        yield found.ready()


def name(stage: Stage) -> str:
    return stage.window.conductor.wishes.context


class Opened(QObject):
    """Where links to files go while a test runs."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    @pyqtSlot(QUrl)
    def take(self, url: QUrl) -> None:
        self.urls.append(url.toLocalFile())


def test_the_report_of_a_specialist_opens_or_the_window_says_how_it_comes_to_be(stage: Stage, tmp_path: Path) -> None:
    opened_ = Opened()
    QDesktopServices.setUrlHandler("file", opened_.take)
    try:
        stage.window.tree.report_wanted.emit("draw")
        assert "ssmprov specialist report draw" in stage.notices
        assert opened_.urls == []
        report = tmp_path / "specialists" / "draw" / "report.html"
        report.parent.mkdir(parents=True)
        report.write_text("<!doctype html>")
        stage.window.tree.report_wanted.emit("draw")
        assert opened_.urls == [str(report)]
    finally:
        QDesktopServices.unsetUrlHandler("file")


# -- keys


def test_every_action_stands_in_a_menu_with_a_key_of_its_own_and_says_what_it_does(stage: Stage) -> None:
    bar = stage.window.menuBar()
    assert bar is not None
    menus = [action.menu() for action in bar.actions()]
    shown = [action for menu in menus if isinstance(menu, QMenu) for action in menu.actions() if not action.menu()]
    assert {id(action) for action in shown} == {id(action) for action in stage.window.actions_.by_key.values()}
    keys = [action.shortcut().toString() for action in shown]
    assert all(keys)
    assert len(set(keys)) == len(keys)
    assert all(action.toolTip() and action.toolTip() != action.text() for action in shown)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.key)
def test_each_key_works_while_one_writes(stage: Stage, entry: object) -> None:
    """The prompt has keys of its own, and must not take these."""
    from composer.actions import Entry

    assert isinstance(entry, Entry)
    action = stage.window.actions_[entry.key]
    done: list[bool] = []
    action.triggered.disconnect()
    action.triggered.connect(done.append)
    action.setEnabled(True)
    stage.window.compose.focus_prompt()
    stage.until(lambda: QApplication.focusWidget() is stage.window.compose.prompt)
    (combination,) = QKeySequence(entry.shortcut)
    QTest.keyClick(stage.window.compose.prompt, combination.key(), combination.keyboardModifiers())
    assert len(done) == 1, f"{entry.shortcut} does not reach {entry.text}"
    assert stage.window.compose.prompt.text == ""


def test_the_key_that_sends_can_be_chosen(stage: Stage) -> None:
    stage.window._choose_send_key("enter")
    stage.window.compose.boxes["s2"].choose("")
    stage.window.compose.boxes["s3"].choose("")
    stage.window.compose.boxes["s1"].choose("")
    stage.type("quick")
    stage.key(Qt.Key.Key_Return)
    stage.until(lambda: stage.transcript == "quickhello!")
    stage.idle()


def test_every_part_can_be_reached_by_tab_and_has_a_name(stage: Stage) -> None:
    kinds = (QAbstractButton, QAbstractSlider, QAbstractSpinBox, QComboBox, QLineEdit, QPlainTextEdit)
    nameless = []
    for widget in stage.window.findChildren(QWidget):
        inner = isinstance(widget.parent(), QAbstractSpinBox | QComboBox)
        by_policy = widget.focusPolicy() & Qt.FocusPolicy.TabFocus
        if isinstance(widget, kinds) and by_policy and not inner and not widget.objectName().startswith("qt_"):
            text = widget.text() if isinstance(widget, QAbstractButton) else ""
            if not (widget.accessibleName() or text):
                nameless.append(widget)
    assert nameless == []
    stage.send("so that there is a tree", "half")
    stage.until(stage.window.tree.tree.isVisible)
    stage.window.compose.focus_prompt()
    seen: list[QWidget | None] = []
    for _ in range(120):
        widget = QApplication.focusWidget()
        if widget in seen:
            break
        seen.append(widget)
        assert widget is not None
        if widget is stage.window.compose.prompt:
            widget.focusNextChild()  # Tab writes a tab there; F6 and F7 lead in and out
        else:
            QTest.keyClick(widget, Qt.Key.Key_Tab)
    for wanted in (stage.window.compose.send_button, stage.window.compose.bang, stage.window.tree.tree):
        assert wanted in seen, [(type(w).__name__, w.accessibleName()) for w in seen if w]


# -- sessions


def test_the_next_window_begins_where_this_one_ended(qtbot: QtBot, talk: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.ready()
        window = stage.window
        window.resize(780, 640)
        size = window.width(), window.height()
        window.pane.tab = "raw"
        window.compose.boxes["s1"].choose("[PLAN]: ")
        window.compose.prompt.set_text("not yet sent\nat all")
        window.compose.bang.setText("!one")
        window.sampling.override("temp", 0.25)
        window._choose_send_key("ctrl+enter")
        choose(stage, "elsewhere")
        window.settings_dock.hide()
        window.close()
        stage.until(lambda: not window.isVisible())
    with opened(qtbot, talk.endpoint, tmp_path, model="") as stage:
        stage.ready()
        window = stage.window
        assert (window.width(), window.height()) == size
        assert window.pane.tab == "raw"
        assert window.compose.draft().opening == "[PLAN]: "
        assert window.compose.prompt.text == "not yet sent\nat all"
        assert window.compose.bang.text() == "!one"
        assert window.conductor.wishes.values == {"temp": 0.25}
        assert window.compose.send_key == "ctrl+enter"
        assert window.conductor.wishes.model == "talk"
        assert name(stage) == "elsewhere"
        assert window.settings_dock.isHidden()


def test_unsent_text_outlives_a_crash(
    qtbot: QtBot, talk: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keeping.SAVE_MS <= 5000, "no more than that is lost"
    monkeypatch.setattr(keeping, "SAVE_MS", 200)
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        stage.ready()
        stage.type("a thought")
        stage.until(
            lambda: (
                "a thought" in (tmp_path / ".composer.json").read_text()
                if (tmp_path / ".composer.json").exists()
                else False
            )
        )
        stage.window.keeper.stop()
        stage.window.compose.prompt.set_text("")  # never written down: the window ends without closing
        stage.window._leave()
    with opened(qtbot, talk.endpoint, tmp_path) as stage:
        assert stage.window.compose.prompt.text == "a thought"


# -- files


def test_a_file_dropped_on_the_window_becomes_a_file_turn(stage: Stage, talk: Cluster, tmp_path: Path) -> None:
    texts = {"a.py": "print(1)\n", "b.txt": "é\n\n~~~(end)~~~\n\n"}
    data = QMimeData()
    for file, text in texts.items():
        (tmp_path / file).write_text(text)
    data.setUrls([QUrl.fromLocalFile(str(tmp_path / file)) for file in texts])
    event = QDropEvent(
        QPointF(QPoint(20, 20)),
        Qt.DropAction.CopyAction,
        data,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    stage.window.compose.dropEvent(event)
    expected = "".join(half_step(n, "FILE", text) + "end)~~~\n\n" for n, text in enumerate(texts.values(), 1))
    stage.until(lambda: stage.transcript == expected)
    stage.idle()
    assert context_of(talk, name(stage)) == expected
    (tmp_path / "c.bin").write_bytes(b"\xff\x00")
    stage.window.desk.put([tmp_path / "c.bin", tmp_path / "gone"])
    stage.until(lambda: "not UTF-8 text" in stage.notices and "no file" in stage.notices)
    assert stage.transcript == expected


# -- models and settings


def test_sliders_and_sets_sample_the_next_turn_and_can_be_saved(stage: Stage, talk: Cluster) -> None:
    window = stage.window
    stage.until(lambda: window.sampling.values() != {})
    window.sampling.override("temp", 0.5)
    window.sampling.override("top_k", 7)
    window.sampling.seed_edit.setText("42")
    stage.send("sampled", "full")
    with Client(talk.endpoint) as client:
        shown = client.show(name(stage), model="talk")
        assert (shown.settings["temp"], shown.settings["top_k"], shown.seed) == (0.5, 7, 42)
        window.sampling.save_wanted.emit("my-set", window.sampling.values())
        stage.until(lambda: window.conductor.wishes.settings == "my-set")
        stage.until(lambda: window.sampling.values().get("top_k") == 7)
        assert window.conductor.wishes.values == {}
        assert client.settings_show("my-set", model="talk").values["temp"] == 0.5


def test_a_context_is_pinned_to_a_worker_and_goes_on_there(stage: Stage, talk: Cluster) -> None:
    stage.send("one", "full")
    workers: list[str] = []
    stage.window.conductor.ended.connect(lambda reply, _rate: workers.append(reply.result.worker))
    for worker in ("talk/1", "talk/0"):
        stage.window.workers.worker_chosen.emit(worker)
        stage.until(lambda worker=worker: f"now runs on {worker}" in stage.notices)
        stage.idle()
        stage.send("again", "full")
    assert workers == ["talk/1", "talk/0"]


def test_the_state_of_each_worker_is_shown_live(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    script = {"replies": [{"after": "", "pieces": [" w"] * 4000}], "token_delay_s": 0.01}
    cluster = make_cluster(scripted_toml(tmp_path / "slow", script=script)).up()
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()

        def table() -> str:
            model = stage.window.workers.table.model()
            assert model is not None
            return " ".join(
                str(model.index(row, column).data()) for row in range(model.rowCount()) for column in range(2 + 1)
            )

        stage.until(lambda: "talk/0 ready" in table())
        stage.type("x")
        stage.press("full")
        stage.until(lambda: "1 / 8" in table())
        stage.press("stop")
        stage.until(lambda: "0 / 8" in table())
        cluster.processes["talk/0"].kill()
        stage.until(lambda: "talk/0" not in table())


def test_the_default_model_is_chosen_even_where_it_comes_later(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path / "two") + rwkv_toml(tmp_path / "two") + "default = true\n")
    cluster.broker()
    cluster.worker("talk")
    with opened(qtbot, cluster.endpoint, tmp_path, model="") as stage:
        stage.until(lambda: stage.window.workers.model == "talk")
        cluster.worker("tiny")
        stage.until(lambda: stage.window.conductor.wishes.model == "tiny")
        stage.idle()
        stage.window.workers.set_model("talk")
        stage.window.workers.model_chosen.emit("talk")
        stage.window.watcher.reached.emit()  # as when yet another model comes
        stage.idle()
        assert stage.window.conductor.wishes.model == "talk", "it was chosen"


def test_another_model_has_contexts_of_its_own(
    qtbot: QtBot, make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    toml = scripted_toml(tmp_path / "two")
    cluster = make_cluster(toml + toml.replace('name = "talk"', 'name = "other"')).up()
    with opened(qtbot, cluster.endpoint, tmp_path) as stage:
        stage.ready()
        stage.send("for talk", "half")
        former = own(tmp_path)
        stage.window.workers.set_model("other")
        stage.window.workers.model_chosen.emit("other")
        stage.until(lambda: "has not read the transcript" in stage.notices)
        assert own(tmp_path) == former, "nothing has moved yet"
        stage.window.workers.set_model("talk")
        stage.window.workers.model_chosen.emit("talk")
        assert stage.window.conductor.wishes.own == former
        stage.window.workers.set_model("other")
        stage.window.workers.model_chosen.emit("other")
        offer(stage, "Read the transcript anew")
        assert own(tmp_path).model == "other"
        assert own_text(cluster, tmp_path) == stage.transcript == turn(1, "USER", "for talk")
        stage.send("for other", "half")
        assert own_text(cluster, tmp_path) == stage.transcript
        assert context_of(cluster, former.name, "talk") == turn(1, "USER", "for talk")


def test_a_context_that_has_read_other_text_brings_its_own_transcript(stage: Stage, talk: Cluster) -> None:
    with Client(talk.endpoint) as client:
        other = f"other{next(fresh)}"
        client.turn(turn(1, "X", "far"), model="talk", save=other, max_tokens=0)
    stage.send("here", "half")
    mine = stage.transcript
    former = name(stage)
    choose(stage, other)
    assert stage.transcript == turn(1, "X", "far")
    assert (stage.directory / f".transcript.{former}.txt").read_text() == mine
    offer(stage, f"Go back to {former}")
    assert (name(stage), stage.transcript) == (former, mine)
    choose(stage, other)
    stage.send("on", "half")
    assert context_of(talk, other) == stage.transcript == turn(1, "X", "far") + turn(2, "USER", "on")
    assert context_of(talk, former) == mine


def test_the_window_follows_the_colours_of_the_system(stage: Stage) -> None:
    from PyQt6.QtGui import QColor, QPalette

    app = QApplication.instance()
    assert isinstance(app, QApplication)
    before = QPalette(app.palette())
    stage.send("**bold**", "half")
    try:
        dark = QPalette(QColor("#222222"))
        dark.setColor(QPalette.ColorRole.Base, QColor("#111111"))
        dark.setColor(QPalette.ColorRole.Text, QColor("#eeeeee"))
        dark.setColor(QPalette.ColorRole.WindowText, QColor("#eeeeee"))
        app.setPalette(dark)
        viewport = stage.window.pane.rendered.viewport()
        assert viewport is not None
        stage.until(lambda: viewport.grab().toImage().pixelColor(3, 3).lightness() < 60)
    finally:
        app.setPalette(before)
    assert FENCE in stage.transcript
