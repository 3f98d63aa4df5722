"""A window on a transcript, beside a real broker: what the tests of the whole window share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cluster import Cluster, scripted_toml
from PyQt6.QtCore import Qt
from PyQt6.QtTest import QTest
from PyQt6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from clients import Client
from composer.app import reporter
from composer.window import Window
from ssmprov.transcript import FENCE
from transcripts.own import Own, own_of
from transcripts.record import Record

PATIENCE_MS = 60_000
SLOW = {
    "replies": [{"after": "[SLOW]: ", "pieces": [f" w{i}" for i in range(3000)]}, {"after": "", "pieces": ["hey"]}],
    "token_delay_s": 0.02,
}


class Stage:
    """One window and what a person does with it."""

    def __init__(self, qtbot: QtBot, window: Window) -> None:
        self.qtbot = qtbot
        self.window = window

    @property
    def directory(self) -> Path:
        return self.window.directory

    @property
    def transcript(self) -> str:
        path = self.directory / ".transcript.txt"
        return path.read_bytes().decode("utf-8", "surrogateescape") if path.exists() else ""

    def until(self, condition: object) -> None:
        self.qtbot.waitUntil(condition, timeout=PATIENCE_MS)  # type: ignore[arg-type]

    def ready(self) -> Stage:
        """The broker has answered, and transcript and context have been held against each other."""
        self.until(lambda: self.window.conductor.scene is not None and self.window.workers.model != "")
        return self

    def idle(self) -> None:
        """No act runs, and what it changed has been looked at."""
        self.until(lambda: not self.window.conductor.busy and self.window.link.busy == 0)

    def type(self, text: str) -> None:
        self.window.compose.focus_prompt()
        QTest.keyClicks(self.window.compose.prompt, text)

    def press(self, key: str) -> None:
        """Have an action of the menus done, by its key."""
        self.window.actions_[key].trigger()

    def send(self, text: str, how: str = "send") -> None:
        """Type a text, send it, and wait until all is done."""
        before = self.transcript
        self.type(text)
        self.press(how)
        self.until(lambda: self.transcript != before)
        self.idle()

    def key(
        self,
        key: Qt.Key,
        modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier,
        widget: QWidget | None = None,
    ) -> None:
        QTest.keyClick(widget or self.window.compose.prompt, key, modifier)

    @property
    def status(self) -> str:
        """What the status line says."""
        line = self.window.status_line
        return " | ".join(label.text() for label in (line.state, line.tokens, line.rate, line.worker, line.about))

    @property
    def notices(self) -> str:
        return " | ".join(notice.message for notice in self.window.notices.notices)


@contextlib.contextmanager
def opened(
    qtbot: QtBot,
    endpoint: str,
    directory: Path,
    model: str = "talk",
    context: str = "",
    home: Path | None = None,
    hook: bool = False,
    timeout_s: float = 3.0,
) -> Iterator[Stage]:
    """A window that is shown, and closed at the end whatever has happened. `hook` as the application has it."""
    client = Client(endpoint, timeout_s=timeout_s, agent="test")
    window = Window(client, directory, home or directory, model, context)
    before = sys.excepthook
    if hook:
        sys.excepthook = reporter(window)
    try:
        window.show()
        qtbot.waitExposed(window)
        yield Stage(qtbot, window)
    finally:
        sys.excepthook = before
        window._leave()
        qtbot.waitUntil(lambda: not window.server.running, timeout=PATIENCE_MS)
        window.deleteLater()


def context_of(cluster: Cluster, name: str, model: str = "talk") -> str:
    """The text that a context has read."""
    with Client(cluster.endpoint) as client:
        return client.text(name, model=model)


def own(directory: Path) -> Own:
    """The context that a directory names."""
    found = own_of(Record(directory))
    assert found is not None, "the directory names no context"
    return found


def own_text(cluster: Cluster, directory: Path) -> str:
    """The text that a directory's own context has read."""
    found = own(directory)
    return context_of(cluster, found.name, found.model)


def slow_cluster(make_cluster: Callable[[str], Cluster], directory: Path) -> Cluster:
    """A broker and a worker that writes for a minute where it is asked as SLOW."""
    return make_cluster(scripted_toml(directory, script=SLOW)).up()


def ask_slowly(stage: Stage) -> None:
    """Have a turn under way that takes long, its first words already there."""
    for name, value in (("s1", "[USER]: "), ("s2", FENCE), ("s3", "[SLOW]: ")):
        stage.window.compose.boxes[name].choose(value)
    stage.type("tell")
    stage.press("full")
    stage.until(lambda: " w3" in stage.window.book.shown)


def two_steps(stage: Stage) -> Stage:
    """Two full steps: turns 1 to 4."""
    stage.ready()
    for name, value in (("s1", "[USER]: "), ("s2", FENCE), ("s3", "[ECHO]: ")):
        stage.window.compose.boxes[name].choose(value)
    stage.send("one", "full")
    stage.send("two", "full")
    return stage


def choose(stage: Stage, context: str) -> None:
    """Choose a context in the panel, and wait until the window shows it."""
    stage.window.workers.contexts.setEditText(context)
    stage.window.workers._on_context()
    stage.until(lambda: context_name(stage) == context)
    stage.idle()
    assert str(own(stage.directory)) == f"talk:{context}"


def offer(stage: Stage, text: str) -> None:
    """Press a button of a notice."""
    stage.until(lambda: text in [label for notice in stage.window.notices.notices for label, _ in notice.actions])
    (do,) = [do for notice in stage.window.notices.notices for label, do in notice.actions if label == text][-1:]
    do()
    stage.until(lambda: not stage.window.conductor.busy)
    stage.idle()


def context_name(stage: Stage) -> str:
    """The context that the window goes on with."""
    return stage.window.conductor.wishes.context


def agrees(stage: Stage, cluster: Cluster) -> bool:
    """Whether the context has read the transcript, which the window shows, and nothing else."""
    return context_of(cluster, context_name(stage)) == stage.transcript == stage.window.book.text
