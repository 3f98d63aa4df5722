"""The window's tests draw on no screen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

os.environ["QT_QPA_PLATFORM"] = "offscreen"


@pytest.fixture
def show(qtbot: QtBot, tmp_path: Path) -> object:
    """Shows a pane with a transcript."""
    from panes import TranscriptPane, open_pane

    from transcripts.record import TRANSCRIPT

    def show(text: str) -> TranscriptPane:
        (tmp_path / TRANSCRIPT).write_text(text, encoding="utf-8")
        return open_pane(qtbot, tmp_path)

    return show
