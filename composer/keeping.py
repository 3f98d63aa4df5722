"""The session of a window: restored when it starts, saved while it runs."""

from __future__ import annotations

from pathlib import Path

from PyQt6.QtCore import QByteArray, QObject, QTimer
from PyQt6.QtWidgets import QMainWindow

from composer import session
from composer.panels.sampling_panel import SamplingPanel
from composer.panels.workers_panel import WorkersPanel
from composer.reading.transcript_pane import TranscriptPane
from composer.troubles import Troubles
from composer.writing.compose_panel import ComposePanel
from transcripts.own import Own

SAVE_MS = 5000
"""How often a changed session is saved, so that typed text survives a crash."""


class Keeper(QObject):
    """Saves geometry, tab, drop-downs, unsent text, model, context and sampling of one window."""

    def __init__(
        self,
        window: QMainWindow,
        directory: Path,
        pane: TranscriptPane,
        compose: ComposePanel,
        sampling: SamplingPanel,
        workers: WorkersPanel,
        troubles: Troubles,
    ) -> None:
        super().__init__(window)
        self._window = window
        self._directory = directory
        self._pane = pane
        self._compose = compose
        self._sampling = sampling
        self._workers = workers
        self._troubles = troubles
        self._saved = session.Session()
        self.used = ""
        """The context of the last session: that of a directory without a dot file, if it has read the transcript."""
        self._timer = QTimer(self)
        self._timer.setInterval(SAVE_MS)
        self._timer.timeout.connect(self.save)

    def restore(self, own: Own | None, model: str = "", context: str = "") -> None:
        """Restore the last session. The directory's context overrides it, and a given model or context overrides both.

        The context stays '' until a broker answers if none of them says which one it is.
        """
        found = session.load(self._directory)
        if found.geometry:
            self._window.restoreGeometry(QByteArray.fromBase64(found.geometry.encode()))
        if found.layout:
            self._window.restoreState(QByteArray.fromBase64(found.layout.encode()))
        if found.tab in ("rendered", "raw"):
            self._pane.tab = found.tab
        self._pane.zoom(found.zoom)
        self._compose.restore_state(found.compose)
        self._sampling.restore_state(found.sampling)
        self.used = found.context
        self._workers.set_model(model or (own.model if own else found.model))
        self._workers.set_context(context or (own.name if own and model in ("", own.model) else ""))
        if found.send_key in ("shift+enter", "enter", "ctrl+enter"):
            self._compose.send_key = found.send_key
        self._troubles.report("session", found.trouble, error=True)
        self._timer.start()

    def save(self) -> None:
        """Save the session if it has changed."""
        now = session.Session(
            geometry=_base64(self._window.saveGeometry()),
            layout=_base64(self._window.saveState()),
            tab=self._pane.tab,
            zoom=self._pane.zoomed,
            compose=self._compose.state(),
            sampling=self._sampling.state(),
            model=self._workers.model,
            context=self._workers.context,
            send_key=self._compose.send_key,
        )
        if now != self._saved:
            self._troubles.report("session", session.save(self._directory, now))
        self._saved = now

    def stop(self) -> None:
        self._timer.stop()


def _base64(data: QByteArray) -> str:
    return data.toBase64().data().decode("ascii")
