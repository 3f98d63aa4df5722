"""The window's transcript against a plain text edit: opening five megabytes, and drawing one more token."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Curve, Figure, Plan, at_most, figure, interleave
from ssmprov.transcript import header, turn

if TYPE_CHECKING:
    from PyQt6.QtWidgets import QPlainTextEdit, QWidget

    from composer.reading.transcript_pane import TranscriptPane

GROUP = "composer"
TURNS = 7192
LONG = 20_000
"""Characters in a long streaming turn. A usual one has 700."""

USUAL = 700
WORDS = ("the state of a context is what the model has read and a fork of it costs nothing so try again " * 2)[
    :-1
].split(" ")


def measure(plan: Plan) -> list[Figure | Curve]:
    """Figures of a window without a screen. Empty, after saying why, if PyQt6 is not installed."""
    needed = ("PyQt6", "markdown_it", "mdit_py_plugins", "ziamath", "pygments")
    if missing := [name for name in needed if find_spec(name) is None]:
        plan.say(f"composer: skipped because {', '.join(missing)} is not installed: pip install 'ssmprov[composer]'")
        return []
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from PyQt6.QtWidgets import QApplication

    application = QApplication.instance() or QApplication([])
    figures: list[Figure | Curve] = [
        *_opening(plan),
        *_streaming(plan, "usual", USUAL),
        *_streaming(plan, "long", LONG),
    ]
    application.processEvents()
    return figures


def _opening(plan: Plan) -> list[Figure]:
    turns = plan.size(TURNS // 10, TURNS)
    directory = plan.scratch / "composer"
    directory.mkdir()
    path = directory / ".transcript.txt"
    path.write_text("".join(transcript(turns)), encoding="utf-8")
    plan.say(f"composer: opening {path.stat().st_size:,} bytes, {turns:,} turns")
    ours, whole = "pane", "pane, 200 turns"
    taken = interleave(
        plan.rounds,
        {
            ours: lambda: _open_pane(directory, wait=False),
            whole: lambda: _open_pane(directory, wait=True),
            "bare": lambda: _open_bare(path),
        },
    )
    bare = ("read, setPlainText", taken["bare"])
    size = f"{path.stat().st_size / 1e6:.2g} MB"
    return [
        figure(
            GROUP, f"open {size} until painted", "ms", (ours, taken[ours]), bare, target=at_most(1000, of="measured")
        ),
        figure(GROUP, f"open {size} until its last 200 turns are drawn", "ms", (whole, taken[whole]), bare),
    ]


def _open_pane(directory: Path, *, wait: bool) -> float:
    """Milliseconds until the last turns are painted, or with `wait` until all initially loaded turns are."""
    from composer.reading.book import Book
    from composer.reading.transcript_pane import TranscriptPane

    began = time.perf_counter()
    book = Book(directory)
    pane = TranscriptPane(book)
    _paint(pane)
    while wait and len(pane.rendered.loaded) < min(200, len(book.items)):
        _events()
    taken = 1000 * (time.perf_counter() - began)
    _drop(pane, book)
    return taken


def _open_bare(path: Path) -> float:
    from PyQt6.QtWidgets import QPlainTextEdit

    began = time.perf_counter()
    edit = QPlainTextEdit()
    edit.setPlainText(path.read_text(encoding="utf-8"))
    _paint(edit)
    taken = 1000 * (time.perf_counter() - began)
    _drop(edit)
    return taken


def _streaming(plan: Plan, name: str, size: int) -> list[Figure]:
    """The cost of drawing one more token at the end of a turn of this size."""
    from PyQt6.QtWidgets import QPlainTextEdit

    from composer.reading.book import Book
    from composer.reading.transcript_pane import TranscriptPane

    plan.say(f"composer: a streamed token at a turn of {size:,} characters")
    directory = plan.scratch / f"composer-{name}"
    directory.mkdir()
    path = directory / ".transcript.txt"
    path.write_text("".join(transcript(400)), encoding="utf-8")
    book, edit = Book(directory), QPlainTextEdit()
    pane = TranscriptPane(book)
    edit.setPlainText(book.text)
    for widget in (pane, edit):
        _paint(widget)
    while len(pane.rendered.loaded) < 200:
        _events()
    content = "\n\n".join(itertools.islice(_passages(), size // 200 + 1))[:size] + "\n\nAnd so "
    tokens = plan.size(20, 100)
    sides = {
        "pane": lambda: _tokens(_stream(pane, 401, content), tokens, pane),
        "bare": lambda: _tokens(_append(edit, header(401, "INTERFACE") + content), tokens, edit),
    }
    taken = interleave(plan.rounds, sides)
    ours, bare = ("pane", taken["pane"]), ("appended to a QPlainTextEdit", taken["bare"])
    _drop(pane, book)
    _drop(edit)
    what = f"one more token, painted, at a turn of {size:,} characters"
    return [figure(GROUP, what, "ms", ours, bare, target=at_most(10, of="measured"))]


def _stream(pane: TranscriptPane, number: int, content: str) -> Callable[[str], None]:
    """Start a stream with this content. Returns a function that adds a token and draws it."""
    pane.book.begin(header(number, "INTERFACE") + content)
    pane.rendered.update_now()

    def add(token: str) -> None:
        pane.book.write(token)
        pane.rendered.update_now()

    return add


def _append(edit: QPlainTextEdit, begun: str) -> Callable[[str], None]:
    from PyQt6.QtGui import QTextCursor

    bar = edit.verticalScrollBar()
    cursor = QTextCursor(edit.document())
    cursor.movePosition(QTextCursor.MoveOperation.End)
    cursor.insertText(begun)

    def add(token: str) -> None:
        cursor.movePosition(QTextCursor.MoveOperation.End)
        cursor.insertText(token)
        if bar is not None:
            bar.setValue(bar.maximum())

    return add


def _tokens(add: Callable[[str], None], count: int, widget: QWidget) -> float:
    """The mean milliseconds per token, including painting. Some of the tokens are formulas."""
    taken = []
    for number in range(count):
        token = f" $x_{{{number % 5}}}$" if number % 10 == 9 else f" {WORDS[number % len(WORDS)]}"
        began = time.perf_counter()
        add(token)
        widget.repaint()
        _events()
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.fmean(taken)


def transcript(turns: int) -> Iterator[str]:
    """Turns of about 700 characters. Four turns have five formulas; some have code or lists."""
    for number in range(1, turns + 1):
        passages = itertools.islice(_passages(number), 3)
        yield turn(number, ("USER", "INTERFACE")[number % 2], "\n\n".join(passages))


def _passages(start: int = 1) -> Iterator[str]:
    for number in itertools.count(start):
        words = " ".join(WORDS[(number * 7 + at) % len(WORDS)] for at in range(46))
        formula = f" so that $h_{{{number % 97}}} = A_{{{number % 53}}} x$ holds" if number % 2 == 0 else ""
        yield f"{words}{formula}, **in turn {number}**."
        if number % 6 == 0:
            yield f"```python\ndef turn_{number}(state: bytes) -> int:\n    return len(state) + {number}\n```"
        if number % 7 == 0:
            yield f"- {words[:60]}\n- {words[60:110]}"


def _paint(widget: QWidget) -> None:
    widget.resize(900, 700)
    widget.show()
    _events()
    widget.repaint()


def _events() -> None:
    from PyQt6.QtWidgets import QApplication

    QApplication.processEvents()


def _drop(*things: object) -> None:
    from PyQt6.QtCore import QObject

    for thing in things:
        if isinstance(thing, QObject):
            thing.deleteLater()
    from PyQt6.QtCore import QCoreApplication, QEvent

    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)
