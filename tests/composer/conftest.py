"""The window's tests draw on no screen."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest
from cluster import PATIENCE_S
from pytestqt.qtbot import QtBot

os.environ["QT_QPA_PLATFORM"] = "offscreen"


@pytest.fixture
def qtbot(qtbot: QtBot) -> QtBot:
    """It waits as long as other tests do, and not only 5 s."""
    for name in ("waitUntil", "waitSignal", "waitSignals"):
        setattr(qtbot, name, functools.partial(getattr(qtbot, name), timeout=int(1000 * PATIENCE_S)))
    return qtbot


@pytest.fixture
def show(qtbot: QtBot, tmp_path: Path) -> object:
    """Shows a pane with a transcript."""
    from panes import TranscriptPane, open_pane

    from transcripts.record import TRANSCRIPT

    def show(text: str) -> TranscriptPane:
        (tmp_path / TRANSCRIPT).write_text(text, encoding="utf-8")
        return open_pane(qtbot, tmp_path)

    return show
