"""`python -P -m demo.screenshots FOLDER`: takes pictures of the window's main states, without a screen.

A scripted model writes the replies, so that the pictures show the window and not the skill of a small model.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PyQt6.QtCore import QEventLoop, QTimer
from PyQt6.QtGui import QColor, QPalette
from PyQt6.QtWidgets import QApplication

from clients import Client
from composer.panels.notice_bar import ERROR
from composer.window import Window
from demo.house import House
from ssmprov.transcript import FENCE, HALF_FENCE, Turn

WIDTH, HEIGHT = 1400, 860
PATIENCE_MS = 30_000

WAVES = r"""A standing wave is two waves that run against each other:

$$\sin(kx - \omega t) + \sin(kx + \omega t) = 2 \sin(kx)\cos(\omega t)$$

Where $\sin(kx) = 0$ nothing moves: these are the **nodes**, at $x = \frac{n\pi}{k}$. A string of length \(L\) that is
held at both ends takes only wavelengths

\[\lambda_n = \frac{2L}{n}, \qquad f_n = n\,f_1\]

| tone | nodes between the ends | frequency |
|---|---|---|
| fundamental | 0 | $f_1$ |
| octave | 1 | $2 f_1$ |
| twelfth | 2 | $3 f_1$ |
"""
CODE = '''Then let us hear it:

```python
import math

def string(n, seconds=1.0, rate=44_100):
    """The first n partials of a string, each as loud as it is long."""
    for i in range(int(seconds * rate)):
        t = i / rate
        yield sum(math.sin(2 * math.pi * 220 * k * t) / k for k in range(1, n + 1))
```

With `n = 1` it is a flute, with `n = 12` nearly a violin.'''
BRIDGE = (
    "The bridge of the violin is a small mill. It takes the sideways push of the bow and turns it into a rocking, "
    "one foot down while the other one rises, and the belly of the instrument breathes with it. What we hear is not "
    "the string, which is too thin to move any air, but the wood that has learnt to follow it."
)
OTHER = (
    "Think of the bridge as a lever. Its left foot stands almost still, over the sound post; its right foot dances "
    "over the bass bar. So the whole belly is shaken by a force that a finger could hold."
)


def script() -> dict[str, object]:
    return {
        "replies": [
            {"after": "standing wave?" + FENCE + "(Turn 3) [INTERFACE]: ", "pieces": [WAVES + FENCE]},
            {"after": "code.\n\n~~~(end)~~~\n\n(Turn 5) [INTERFACE]: ", "pieces": [CODE + FENCE]},
            {"after": "(Turn 7) [INTERFACE]: ", "pieces": [*_words(BRIDGE), FENCE]},
            {"after": "(Turn 7) [MUSE]: ", "pieces": [*_words(OTHER), FENCE]},
            {"after": "", "pieces": ["Yes.", FENCE]},
        ],
        "token_delay_s": 0.02,
    }


def _words(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [first, *(f" {word}" for word in rest)]


def tables(house: House) -> str:
    path = house.home / "sketch.json"
    path.write_text(json.dumps(script()))
    return f'\n[[model]]\nname = "sketch"\nruntime = "scripted"\npath = "{path}"\nworkers = 2\nsettings = "rwkv7"\n'


class Camera:
    """Controls one window and takes pictures of it."""

    def __init__(self, window: Window, folder: Path) -> None:
        self.window = window
        self.folder = folder

    def until(self, condition: Callable[[], bool]) -> None:
        """Run the window's event loop until a condition holds. Raises TimeoutError."""
        loop = QEventLoop()
        look = QTimer()
        look.timeout.connect(lambda: loop.quit() if condition() else None)
        look.start(20)
        QTimer.singleShot(PATIENCE_MS, loop.quit)
        loop.exec()
        if not condition():
            raise TimeoutError("the window did not reach the state for the next picture")

    def rest(self, ms: int = 300) -> None:
        loop = QEventLoop()
        QTimer.singleShot(ms, loop.quit)
        loop.exec()

    def idle(self) -> None:
        self.until(lambda: not self.window.conductor.busy and self.window.link.busy == 0)
        self.rest()

    def take(self, name: str) -> None:
        self.rest()
        picture = self.window.grab()
        if not picture.save(str(self.folder / f"{name}.png")):
            raise OSError(f"{self.folder / name}.png cannot be written")
        print(f"{name}.png", flush=True)

    def send(self, text: str, how: str, opening: str = "[USER]: ", reply: str = "[INTERFACE]: ") -> None:
        compose = self.window.compose
        for key, value in {"s1": opening, "s2": HALF_FENCE if how == "half" else FENCE, "s3": reply}.items():
            compose.boxes[key].choose(value)
        compose.prompt.set_text(text)
        self.window.actions_[how].trigger()

    def said(self, text: str, how: str, opening: str = "[USER]: ", reply: str = "[INTERFACE]: ") -> None:
        before = self.window.book.text
        self.send(text, how, opening, reply)
        self.until(lambda: self.window.book.text != before and not self.window.book.streaming)
        self.idle()

    def choose(self, number: int) -> None:
        items = self.window.book.items
        self.window.pane.choose(next(i for i, t in enumerate(items) if isinstance(t, Turn) and t.number == number))


def shoot(camera: Camera, stop: Callable[[], None]) -> None:
    window = camera.window
    camera.until(lambda: window.workers.model != "" and window.conductor.scene is not None)
    camera.idle()
    camera.take("empty")
    camera.said("You are a patient teacher of physics, who likes instruments.", "half", "[CONTEXT]: ")
    camera.said("What is a standing wave?", "full")
    camera.take("math")
    camera.said("I believe it when I hear it. Give me code.", "full")
    camera.take("code")
    camera.send("And how does the sound leave the violin?", "full")
    camera.until(lambda: "turns it into a rocking" in window.book.shown)
    camera.window.compose.prompt.set_text("Who found that out?")
    camera.take("streaming")
    camera.until(lambda: not window.conductor.busy)
    camera.idle()
    camera.choose(5)
    window.actions_["back"].trigger()
    camera.idle()
    window.compose.boxes["s3"].choose("[MUSE]: ")
    camera.said("And how does the sound leave the violin? Say it like a poet.", "full", reply="[MUSE]: ")
    camera.choose(5)
    window.moves.fork(window.pane.chosen, "physics/strings", "sketch/1")
    camera.idle()
    window.compose.prompt.set_text("")
    window.tree.raise_()
    camera.idle()
    camera.take("tree")
    dark(True)
    camera.take("dark")
    window.settings_dock.raise_()
    camera.take("settings")
    dark(False)
    window.tree.raise_()
    stop()
    camera.until(lambda: any(notice.kind == ERROR for notice in window.notices.notices))
    camera.take("error")


def dark(on: bool) -> None:
    """Switch to the colours of a dark or a light desktop."""
    app = QApplication.instance()
    assert isinstance(app, QApplication), "main made one"
    palette = QPalette() if not on else QPalette(QColor("#2b2d31"))
    if on:
        role = QPalette.ColorRole
        for which, colour in {
            role.Window: "#25272b", role.Base: "#1e2023", role.AlternateBase: "#26282c", role.Text: "#e3e5e8",
            role.WindowText: "#e3e5e8", role.Button: "#33363b", role.ButtonText: "#e3e5e8", role.Highlight: "#3d6fb4",
            role.HighlightedText: "#ffffff", role.PlaceholderText: "#8b9097", role.ToolTipBase: "#33363b",
            role.ToolTipText: "#e3e5e8", role.Link: "#7fb0ee",
        }.items():  # fmt: skip
            palette.setColor(which, QColor(colour))
        for which in (role.Text, role.WindowText, role.ButtonText):
            palette.setColor(QPalette.ColorGroup.Disabled, which, QColor("#6b7076"))
    app.setPalette(palette)


def main() -> int:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    app = QApplication(sys.argv[:1])
    app.setStyle("Fusion")
    with tempfile.TemporaryDirectory() as folder_of_stage, House(tables) as house:
        stage = Path(folder_of_stage) / "violin"
        stage.mkdir()
        window = Window(Client(house.endpoint, agent="screenshots"), stage, house.home, "sketch")
        window.resize(WIDTH, HEIGHT)
        window.show()
        shoot(Camera(window, folder), house.close)
        window.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
