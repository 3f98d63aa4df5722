"""Probes from the window: shown in a window of their own, and nothing of them recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from PyQt6.QtWidgets import QPlainTextEdit
from pytestqt.qtbot import QtBot
from slotted import MODEL
from stage import Stage, opened

from composer.slash import Slashes


@pytest.fixture
def stage(qtbot: QtBot, slotted: Cluster, tmp_path: Path) -> Iterator[Stage]:
    with opened(qtbot, slotted.endpoint, tmp_path, MODEL, "window-probes") as found:
        yield found.ready()


def say(stage: Stage, text: str) -> None:
    stage.window.notices.clear()
    stage.window.compose.prompt.set_text(text)
    stage.press("send")


def answered(stage: Stage, text: str, answer: str) -> None:
    say(stage, text)
    stage.until(lambda: answer in stage.notices)


def shown(stage: Stage) -> list[str]:
    """What the windows of probes show."""
    return [
        view.toPlainText() for view in stage.window.findChildren(QPlainTextEdit) if view.accessibleName() == "Probe"
    ]


def test_a_probe_is_shown_as_the_window_was_told_to_read(stage: Stage) -> None:
    say(stage, "/probe some text")
    stage.until(lambda: len(shown(stage)) == 1)
    assert shown(stage)[0].startswith("9 tokens read after the empty context")
    answered(stage, "/routing topk 3", "routing = topk 3")
    answered(stage, "/slotmask 0 3", "slotmask = 0 3")
    answered(stage, "/slotmask 9", "Slot 9 cannot be masked")
    answered(stage, "/slotmask", "slotmask = 0 3")
    say(stage, "/probe some text")
    stage.until(lambda: len(shown(stage)) == 2)
    assert "\nrouting topk 3, slotmask 0 3 (read)\n" in shown(stage)[1]
    assert stage.transcript == ""


def test_a_model_without_slots_says_so(qtbot: QtBot, slotted: Cluster, tmp_path: Path) -> None:
    with opened(qtbot, slotted.endpoint, tmp_path, "talk", "window-probes") as stage:
        stage.ready()
        for text in ("/probe some text", "/routing top1", "/slotmask"):
            answered(stage, text, "has no addressed slots")
            assert stage.window.compose.prompt.text == text, "what failed can be sent again"
        answered(stage, "/probe", "needs a text")
        slashes: Slashes = stage.window.slashes
        assert slashes._look.routing == "softmax"
