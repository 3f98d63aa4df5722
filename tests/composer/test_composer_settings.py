from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PyQt6.QtCore import Qt
from PyQt6.QtWidgets import QApplication, QLineEdit
from pytestqt.qtbot import QtBot

from composer.panels.knob import SCALES
from composer.panels.sampling_panel import SamplingPanel
from composer.panels.status_line import StatusLine
from composer.panels.workers_panel import ANY_WORKER, NO_BROKER, WorkersPanel
from ssmprov.ops import BrokerStatus, ModelStatus, StatusResult, WorkerStatus
from ssmprov.settings import KEYS, RANGES, Settings, as_values, check_value

MINI = {"temp": 0.7, "top_p": 0.951234, "top_k": 40, "min_p": 0.0, "pen_freq": 0.2, "pen_pres": 0.1, "pen_rep": 1.1} | {
    "max": 8192
}


@pytest.fixture
def sampling(qtbot: QtBot) -> SamplingPanel:
    panel = SamplingPanel()
    qtbot.addWidget(panel)
    panel.set_sets(["mini", "greedy"], "mini")
    panel.set_values(MINI)
    with qtbot.waitActive(panel):
        panel.show()
        panel.activateWindow()
    return panel


def test_every_setting_has_its_row() -> None:
    assert set(SCALES) == set(KEYS) == set(RANGES)


@pytest.mark.parametrize("key", KEYS)
@given(share=st.floats(0, 1))
def test_each_place_of_a_slider_is_a_value_that_the_server_takes(key: str, share: float) -> None:
    scale = SCALES[key]
    place = round(share * scale.steps)
    value = scale.value(place)
    assert check_value(key, value) == value
    if scale.step:
        assert scale.place(value) == place
    assert [scale.value(0), scale.value(scale.steps)] == [scale.low, scale.high]


def test_a_sets_values_are_no_overrides_however_the_widgets_round_them(sampling: SamplingPanel) -> None:
    assert sampling.overrides() == {}
    assert sampling.values() == MINI
    assert sampling.chosen_set == ""
    assert sampling.sets.itemText(0) == "model's default (mini)"


def test_a_slider_makes_an_override_which_is_bold_and_can_be_taken_back(sampling: SamplingPanel, qtbot: QtBot) -> None:
    knob = sampling.knobs["temp"]
    with qtbot.waitSignal(sampling.changed):
        qtbot.keyClick(knob.slider, Qt.Key.Key_Right)
    assert sampling.overrides() == {"temp": 0.75}
    assert knob.spin.text() == "0.75"
    assert knob.title.font().bold()
    assert knob.reset.isVisible()
    with qtbot.waitSignal(sampling.changed):
        qtbot.mouseClick(knob.reset, Qt.MouseButton.LeftButton)
    assert sampling.overrides() == {}
    assert not knob.title.font().bold()
    assert not knob.reset.isVisible()
    qtbot.keyClick(knob.slider, Qt.Key.Key_Right)
    qtbot.keyClick(knob.slider, Qt.Key.Key_Left)
    assert sampling.overrides() == {}  # back at the set's value by hand


def test_the_spin_box_reaches_beyond_the_slider(sampling: SamplingPanel, qtbot: QtBot) -> None:
    for key, typed, value in (("temp", "9.5", 9.5), ("top_k", "5000", 5000), ("max", "1048576", 1 << 20)):
        spin = sampling.knobs[key].spin
        spin.selectAll()
        qtbot.keyClicks(spin, typed)
        qtbot.keyClick(spin, Qt.Key.Key_Return)
        assert sampling.overrides()[key] == value
    assert isinstance(sampling.overrides()["top_k"], int)
    assert sampling.knobs["temp"].slider.value() == sampling.knobs["temp"].slider.maximum()


def test_choosing_a_set_asks_for_its_values_and_drops_what_differed(sampling: SamplingPanel, qtbot: QtBot) -> None:
    sampling.knobs["temp"].spin.setValue(1.5)
    with qtbot.waitSignal(sampling.set_chosen) as chosen:
        sampling.sets.setFocus()
        qtbot.keyClick(sampling.sets, Qt.Key.Key_Down)
    assert chosen.args == ["greedy"]
    assert sampling.chosen_set == "greedy"
    assert sampling.overrides() == {}
    sampling.set_values(as_values(Settings(temp=0.0)))
    assert sampling.values()["temp"] == 0.0


def test_new_values_of_the_same_set_leave_what_was_chosen(sampling: SamplingPanel) -> None:
    sampling.knobs["temp"].spin.setValue(1.5)
    sampling.set_sets(["mini", "greedy", "new"], "mini")
    sampling.set_values(MINI | {"top_k": 1})
    assert sampling.overrides() == {"temp": 1.5}
    sampling.set_values(MINI | {"temp": 1.5})
    assert sampling.overrides() == {}


def test_a_set_that_is_gone_gives_way_to_the_default(sampling: SamplingPanel, qtbot: QtBot) -> None:
    sampling.choose_set("greedy")
    with qtbot.waitSignal(sampling.set_chosen) as chosen:
        sampling.set_sets(["mini"], "mini")
    assert chosen.args == [""]
    assert sampling.chosen_set == ""


def test_save_as_checks_the_name_and_hands_on_all_values(sampling: SamplingPanel, qtbot: QtBot) -> None:
    saved: list[tuple[str, dict[str, float]]] = []
    sampling.save_wanted.connect(lambda name, values: saved.append((name, values)))
    sampling.knobs["temp"].spin.setValue(1.5)
    assert not sampling.name_row.isVisible()
    qtbot.mouseClick(sampling.save_as, Qt.MouseButton.LeftButton)
    assert QApplication.focusWidget() is sampling.name_edit
    for name, said in (("", "Enter a name"), ("../x", "not a valid name"), ("@x", "reserved")):
        sampling.name_edit.setText(name)
        qtbot.keyClick(sampling.name_edit, Qt.Key.Key_Return)
        assert said in sampling.word.text()
    assert saved == []
    sampling.name_edit.clear()
    qtbot.keyClicks(sampling.name_edit, "bold.json")
    assert not sampling.word.isVisible()
    qtbot.keyClick(sampling.name_edit, Qt.Key.Key_Return)
    assert saved == [("bold", MINI | {"temp": 1.5})]
    assert not sampling.name_row.isVisible()


def test_escape_leaves_save_as(sampling: SamplingPanel, qtbot: QtBot) -> None:
    qtbot.mouseClick(sampling.save_as, Qt.MouseButton.LeftButton)
    qtbot.keyClick(sampling.name_edit, Qt.Key.Key_Escape)
    assert not sampling.name_row.isVisible()
    assert QApplication.focusWidget() is sampling.save_as


@pytest.mark.parametrize(
    ("typed", "seed"), [("", None), ("7", 7), (str(2**63 - 1), 2**63 - 1), ("x1", 1), ("-5", 5), ("9" * 19, 10**18 - 1)]
)
def test_a_seed_is_a_number_that_the_server_takes_or_none(
    sampling: SamplingPanel, qtbot: QtBot, typed: str, seed: int | None
) -> None:
    qtbot.keyClicks(sampling.seed_edit, typed)
    assert sampling.seed == seed


def test_the_state_comes_back_before_the_server_has_answered(sampling: SamplingPanel, qtbot: QtBot) -> None:
    sampling.choose_set("greedy")
    sampling.set_values(MINI)
    sampling.knobs["top_k"].spin.setValue(7)
    sampling.seed_edit.setText("42")
    other = SamplingPanel()
    qtbot.addWidget(other)
    told: list[Any] = []
    other.changed.connect(lambda: told.append(1))
    other.restore_state(sampling.state())
    assert (other.chosen_set, other.overrides(), other.seed) == ("greedy", {"top_k": 7}, 42)
    assert told == []
    other.set_sets(["mini", "greedy"], "mini")
    other.set_values(MINI)
    assert (other.chosen_set, other.overrides(), other.seed) == ("greedy", {"top_k": 7}, 42)
    assert other.sets.currentText() == "greedy"


def test_a_state_that_does_not_fit_is_passed_over(sampling: SamplingPanel) -> None:
    before = sampling.state()
    for state in (
        {},
        {"set": 1, "values": [1], "seed": 5},
        {"values": {"temp": "hot", "top_k": 1.5, "new": 1}, "seed": "x"},
    ):
        sampling.restore_state(state)
    assert sampling.state() == before


def test_keys_alone_go_through_all_of_the_sampling_panel(sampling: SamplingPanel, qtbot: QtBot) -> None:
    sampling.sets.setFocus()
    seen: list[str] = []
    for _ in range(19):
        focused = QApplication.focusWidget()
        assert focused is not None
        seen.append(focused.accessibleName())
        qtbot.keyClick(focused, Qt.Key.Key_Tab)
    assert seen[:4] == ["Sampling set", "Save these values as a set", "Temperature, slider", "Temperature"]
    assert seen[-1] == "Seed"
    assert "" not in seen


# -- models and workers


def status(*workers: WorkerStatus, models: tuple[str, ...] = ("talk", "other")) -> StatusResult:
    broker = BrokerStatus(
        pid=1,
        uptime_s=1.0,
        clients=1,
        queued=2,
        running=3,
        accepted=1,
        answered=1,
        refused=0,
        requests_per_s=1.0,
        partials_per_s=1.0,
        draining=False,
    )
    return StatusResult(
        broker=broker,
        models=[ModelStatus(name=name, runtime="scripted", architecture="none") for name in models],
        workers=list(workers),
    )


def worker(name: str, running: int = 0, state: str = "ready", rate: float = 0.0) -> WorkerStatus:
    return WorkerStatus(
        name=name,
        model=name.partition("/")[0],
        pid=1,
        host="host",
        epoch=1,
        state=state,
        slots=8,
        running=running,
        hot_bytes=3 << 20,
        hot=1,
        tokens_per_s=rate,
        prefill_per_s=0.0,
    )


@pytest.fixture
def workers(qtbot: QtBot) -> WorkersPanel:
    panel = WorkersPanel()
    qtbot.addWidget(panel)
    panel.resize(500, 400)
    panel.set_model("talk")
    panel.set_context("live")
    panel.show_status(status(worker("talk/0", 4), worker("talk/1"), worker("other/0")))
    with qtbot.waitActive(panel):
        panel.show()
        panel.activateWindow()
    return panel


def cells(panel: WorkersPanel) -> list[list[str]]:
    table = panel.table
    return [
        [item.text() if (item := table.item(row, column)) else "" for column in range(table.columnCount())]
        for row in range(table.rowCount())
    ]


def test_the_status_is_shown(workers: WorkersPanel) -> None:
    assert "3 running, 2 queued" in workers.state.text()
    assert "scripted" in workers.details.text()
    assert cells(workers)[1] == ["talk/0", "ready", "4 / 8", "0", "0", "3.0 MiB"]
    assert workers.models.currentText() == "talk"
    assert not workers.start.isVisible()


def test_a_new_status_changes_the_table_in_place(workers: WorkersPanel) -> None:
    table = workers.table
    table.selectRow(1)
    before = table.item(1, 0)
    workers.show_status(status(worker("talk/0", 8, "draining", 88.4), worker("talk/2")))
    assert [row[0] for row in cells(workers)] == ["talk/0", "talk/2"]
    assert cells(workers)[0][1:4] == ["draining", "8 / 8", "88"]
    assert table.item(0, 0) is before
    assert [index.row() for index in table.selectedIndexes()][:1] == [0]


def test_without_a_broker_one_is_offered(workers: WorkersPanel, qtbot: QtBot) -> None:
    workers.show_status(None)
    assert workers.state.text() == NO_BROKER
    assert cells(workers) == []
    assert workers.model == "talk"
    with qtbot.waitSignal(workers.start_wanted):
        qtbot.mouseClick(workers.start, Qt.MouseButton.LeftButton)
    workers.show_status(status(worker("talk/0")))
    assert not workers.start.isVisible()
    assert workers.models.currentText() == "talk"


def test_a_model_is_chosen_and_its_workers_are_offered(workers: WorkersPanel, qtbot: QtBot) -> None:
    workers.worker_box.setFocus()
    with qtbot.waitSignal(workers.worker_chosen) as chosen:
        qtbot.keyClick(workers.worker_box, Qt.Key.Key_Down)
    assert chosen.args == ["talk/0"]
    workers.models.setFocus()
    with qtbot.waitSignal(workers.model_chosen) as chosen:
        qtbot.keyClick(workers.models, Qt.Key.Key_Down)
    assert chosen.args == ["other"]
    assert workers.worker == ""
    box = workers.worker_box
    assert [box.itemText(i) for i in range(box.count())] == [ANY_WORKER, "other/0"]


def test_a_chosen_worker_that_is_lost_stays_chosen_and_says_so(workers: WorkersPanel) -> None:
    workers.set_worker("talk/1")
    workers.show_status(status(worker("talk/0")))
    assert workers.worker_box.currentText() == "talk/1 (gone)"
    assert workers.worker == "talk/1"
    workers.show_status(status(worker("talk/0"), worker("talk/1")))
    assert workers.worker_box.currentText() == "talk/1"


def line_of(panel: WorkersPanel) -> QLineEdit:
    line = panel.contexts.lineEdit()
    assert line is not None
    return line


def test_a_context_is_chosen_by_its_name(workers: WorkersPanel, qtbot: QtBot) -> None:
    line = line_of(workers)
    line.selectAll()
    qtbot.keyClicks(line, "drafts/one")
    with qtbot.waitSignal(workers.context_chosen) as chosen:
        qtbot.keyClick(line, Qt.Key.Key_Return)
    assert chosen.args == ["drafts/one"]
    assert workers.context == "drafts/one"
    with qtbot.assertNotEmitted(workers.context_chosen):
        qtbot.keyClick(line, Qt.Key.Key_Return)  # the same one once more


@pytest.mark.parametrize("name", ["../up", "@bridge/6502", "", "a b", ".hidden"])
def test_a_name_that_is_none_is_told_and_not_chosen(workers: WorkersPanel, qtbot: QtBot, name: str) -> None:
    line = line_of(workers)
    line.clear()
    qtbot.keyClicks(line, name)
    with qtbot.assertNotEmitted(workers.context_chosen):
        qtbot.keyClick(line, Qt.Key.Key_Return)
    assert "not a valid name" in workers.word.text()
    assert workers.word.isVisible()
    assert workers.context == "live"
    qtbot.keyClicks(line, "x")
    assert not workers.word.isVisible()


def test_a_name_is_taken_when_one_goes_elsewhere_and_an_empty_one_comes_back(
    workers: WorkersPanel, qtbot: QtBot
) -> None:
    line = line_of(workers)
    line.setFocus()
    line.clear()
    qtbot.keyClick(line, Qt.Key.Key_Tab)
    assert (line.text(), workers.context) == ("live", "live")
    line.setFocus()
    line.selectAll()
    qtbot.keyClicks(line, "other")
    with qtbot.waitSignal(workers.context_chosen) as chosen:
        qtbot.keyClick(line, Qt.Key.Key_Tab)
    assert chosen.args == ["other"]


def test_new_names_do_not_disturb_who_types(workers: WorkersPanel, qtbot: QtBot) -> None:
    line = line_of(workers)
    line.selectAll()
    qtbot.keyClicks(line, "pri")
    qtbot.keyClick(line, Qt.Key.Key_Left)
    workers.set_contexts(["live", "primed"])
    workers.show_status(status(worker("talk/0")))
    assert (line.text(), line.cursorPosition()) == ("pri", 2)
    assert [workers.contexts.itemText(i) for i in range(workers.contexts.count())] == ["live", "primed"]
    assert workers.context == "live"


# -- the status line


@pytest.fixture
def line(qtbot: QtBot) -> StatusLine:
    line = StatusLine()
    qtbot.addWidget(line)
    line.resize(1000, 30)
    line.show()
    return line


def test_the_status_line_tells_of_each_stage(line: StatusLine) -> None:
    line.queued(3)
    assert "place 3" in line.state.text()
    line.reading(100, 3000)
    assert line.bar.isVisible()
    assert (line.bar.value(), line.bar.maximum()) == (100, 3000)
    line.writing(1234, 88.44, "talk/0")
    assert not line.bar.isVisible()
    assert [line.tokens.text(), line.rate.text(), line.worker.text()] == ["1,234 tokens", "88.4 tokens/s", "talk/0"]
    line.ended("cancelled", 1, 0.0, "talk/0")
    assert [line.state.text(), line.tokens.text(), line.rate.text()] == ["Stopped", "1 token", ""]
    line.ended("worker_lost", 0, 0.0, "")
    assert line.state.text() == "Worker lost"
    line.idle("Ready")
    assert [line.state.text(), line.tokens.text(), line.worker.text()] == ["Ready", "", ""]


def test_nothing_jumps_while_the_numbers_run(line: StatusLine) -> None:
    line.context("live", 10, False)
    places = set()
    for tokens, rate in ((1, 0.1), (999, 10.0), (123_456, 1234.5)):
        line.writing(tokens, rate, "talk/0")
        layout = line.layout()
        assert layout is not None
        layout.activate()
        places.add((line.tokens.geometry().right(), line.rate.geometry().right(), line.worker.x(), line.about.x()))
    line.reading(1, 2)
    layout.activate()
    places.add((line.tokens.geometry().right(), line.rate.geometry().right(), line.worker.x(), line.about.x()))
    assert len(places) == 1


def test_a_context_that_differs_says_so(line: StatusLine) -> None:
    line.context("live", 12345, False)
    assert line.about.text() == "live · 12,345 tokens"
    line.context("live", 12345, True)
    assert "differs" in line.about.text()
    assert "Go back" in line.about.toolTip()
