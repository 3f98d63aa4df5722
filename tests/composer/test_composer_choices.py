from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PyQt6.QtCore import Qt
from pytestqt.qtbot import QtBot

from composer.writing.choices import (
    LISTS,
    MAX_BYTES,
    Choices,
    default_text,
    defaults,
    label,
    quoted,
    read_line,
    read_lines,
)
from composer.writing.choices_editor import ChoicesEditor
from ssmprov import durable
from ssmprov.transcript import FENCE, HALF_FENCE

ROOT = Path(__file__).resolve().parents[2]


def test_without_files_the_lists_are_those_of_the_installer(tmp_path: Path, qtbot: QtBot) -> None:
    choices = Choices(tmp_path)
    assert choices.values("s1") == choices.values("s3") == defaults("s1")
    assert choices.values("s2") == [HALF_FENCE, FENCE]
    assert choices.troubles() == []


@pytest.mark.parametrize("name", LISTS)
def test_the_default_file_is_the_installers_to_the_byte(name: str) -> None:
    script = f"eval \"$(sed -n '/^readonly ROLES/p; /^content_of()/,/^}}/p' install.sh)\"; content_of .{name}.txt"
    written = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert default_text(name) == written


def test_a_bad_line_is_shown_and_skipped(tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / ".s1.txt").write_bytes(b'"[USER]: "\n\n[oops\n7\n"[X]: "\r\n"\xff"\n"[USER]: "\n"\\ud800"\n')
    choices = Choices(tmp_path)
    assert choices.values("s1") == ["[USER]: ", "[X]: "]
    told = choices.troubles()
    assert [sentence.split(":")[0] for sentence in told] == [f".s1.txt, line {n}" for n in (3, 4, 6, 8)]
    assert "int" in told[1]
    assert "UTF-8" in told[2]


@pytest.mark.parametrize(
    "line", ["(" * 5000, "-" * 3000 + "1", "-" * 60_000 + "1", "[" * 60_000, "f'x'", "b'x'", "'a' + x", "'\0'", "'"]
)
def test_no_line_can_do_harm(line: str) -> None:
    with pytest.raises(ValueError):
        read_line(line)


@given(st.binary(max_size=200))
def test_any_file_is_read_without_an_error(data: bytes) -> None:
    values, troubles = read_lines(data)
    assert "" not in values
    assert all(what for _, what in troubles)


@given(
    st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1), unique=True)
)
def test_what_is_written_is_read_back(values: list[str]) -> None:
    assert read_lines("".join(f"{quoted(value)}\n" for value in values).encode()) == (values, [])


def test_a_large_file_is_not_read(tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / ".s2.txt").write_bytes(b'"x"\n' * MAX_BYTES)
    choices = Choices(tmp_path)
    assert choices.values("s2") == defaults("s2")
    assert "64 KiB" in choices.troubles()[0]


def test_only_so_many_lines_are_read() -> None:
    values, troubles = read_lines("".join(f'"{n}"\n' for n in range(600)).encode())
    assert len(values) == 500
    assert troubles == [(501, "only the first 500 lines are read")]


def test_a_folder_in_the_place_of_a_file_is_reported(tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / ".s3.txt").mkdir()
    choices = Choices(tmp_path)
    assert choices.values("s3") == defaults("s3")
    assert ".s3.txt" in choices.troubles()[0]


def test_labels_are_what_a_person_says() -> None:
    values = ["", "[USER]: ", HALF_FENCE, FENCE, "[USER]:", "x" * 99]
    shown = [label(value) for value in values]
    assert shown[:5] == ["(none)", "USER", "half step", "full step", "'[USER]:'"]
    assert len(shown[5]) <= 28


def test_files_are_followed_also_after_they_were_replaced(tmp_path: Path, qtbot: QtBot) -> None:
    choices = Choices(tmp_path)
    path = tmp_path / ".s1.txt"
    for turn in range(3):  # made, and replaced twice: the watch must survive
        with qtbot.waitSignal(choices.changed, check_params_cb=lambda name: name == "s1"):
            durable.replace(path, f'"[R{turn}]: "\n'.encode())
        assert choices.values("s1") == [f"[R{turn}]: "]
    with qtbot.waitSignal(choices.changed), path.open("a") as file:
        file.write('"[MORE]: "\n')
    assert choices.values("s1") == ["[R2]: ", "[MORE]: "]
    with qtbot.waitSignal(choices.changed):
        path.unlink()
    assert choices.values("s1") == defaults("s1")


def make_editor(qtbot: QtBot, directory: Path, name: str = "s1") -> tuple[Choices, ChoicesEditor]:
    choices = Choices(directory)
    editor = ChoicesEditor(choices, name)
    editor.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    qtbot.addWidget(editor)
    with qtbot.waitActive(editor):
        editor.show()
        editor.activateWindow()
    return choices, editor


def test_the_editor_says_per_line_what_is_wrong_while_one_types(tmp_path: Path, qtbot: QtBot) -> None:
    _, editor = make_editor(qtbot, tmp_path)
    assert "13 entries" in editor.status.text()
    editor.editor.clear()
    qtbot.keyClicks(editor.editor, '"[ONE]: "')
    qtbot.keyClick(editor.editor, Qt.Key.Key_Return)
    qtbot.keyClicks(editor.editor, "two")
    assert editor.status.text().startswith("Line 2: ")
    assert len(editor.editor.extraSelections()) == 1
    for _ in "two":
        qtbot.keyClick(editor.editor, Qt.Key.Key_Backspace)
    assert editor.status.text() == "1 entry, no errors."
    assert editor.editor.extraSelections() == []


def test_the_editor_saves_and_the_list_changes(tmp_path: Path, qtbot: QtBot) -> None:
    choices, editor = make_editor(qtbot, tmp_path)
    editor.editor.setPlainText('"[A\u00a0B]: "')
    with qtbot.waitSignal(choices.changed):
        qtbot.keyClick(editor.editor, Qt.Key.Key_S, Qt.KeyboardModifier.ControlModifier)
    assert choices.values("s1") == ["[A\u00a0B]: "]
    assert (tmp_path / ".s1.txt").read_text() == '"[A\u00a0B]: "\n'
    assert not editor.isVisible()


def test_escape_asks_once_where_something_was_changed(tmp_path: Path, qtbot: QtBot) -> None:
    _, editor = make_editor(qtbot, tmp_path)
    qtbot.keyClicks(editor.editor, "x")
    qtbot.keyClick(editor.editor, Qt.Key.Key_Escape)
    assert editor.isVisible()
    assert "not saved" in editor.status.text()
    qtbot.keyClick(editor.editor, Qt.Key.Key_Escape)
    assert not editor.isVisible()
    assert not (tmp_path / ".s1.txt").exists()


def test_escape_closes_at_once_where_nothing_was_changed(tmp_path: Path, qtbot: QtBot) -> None:
    _, editor = make_editor(qtbot, tmp_path)
    qtbot.keyClick(editor.editor, Qt.Key.Key_Escape)
    assert not editor.isVisible()


def test_what_another_program_wrote_meanwhile_is_not_lost_unasked(tmp_path: Path, qtbot: QtBot) -> None:
    _, editor = make_editor(qtbot, tmp_path)
    (tmp_path / ".s1.txt").write_text('"[THEIRS]: "\n')
    editor.editor.setPlainText('"[MINE]: "')
    editor.save_now()
    assert (tmp_path / ".s1.txt").read_text() == '"[THEIRS]: "\n'
    assert "Save again" in editor.status.text()
    editor.save_now()
    assert (tmp_path / ".s1.txt").read_text() == '"[MINE]: "\n'


def test_a_file_that_cannot_be_written_leaves_the_editor_open(tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / ".s1.txt").mkdir()
    _, editor = make_editor(qtbot, tmp_path)
    editor.editor.setPlainText('"[A]: "')
    editor.save_now()
    assert editor.isVisible()
    assert "Not saved" in editor.status.text()
    assert [path.name for path in tmp_path.iterdir()] == [".s1.txt"]
