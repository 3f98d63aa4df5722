"""What goes wrong, on the notice bar, with what can be done about it; it goes when it is mended."""

from __future__ import annotations

from collections.abc import Callable

from PyQt6.QtCore import QObject, QTimer

from composer import advice
from composer.panels.notice_bar import NoticeBar
from ssmprov.errors import SsmprovError, Unreachable

HINT_MS = 12_000
"""How long a hint stands that asks for nothing."""

Action = tuple[str, Callable[[], None]]


class Troubles(QObject):
    """`offer` names what `serve` does: start a broker. It gives None while one of ours runs."""

    def __init__(
        self,
        notices: NoticeBar,
        offer: str,
        serve: Callable[[], Callable[[], None] | None],
        refresh: Callable[[], None],
    ) -> None:
        super().__init__(notices)
        self._notices = notices
        self._offer = offer
        self._serve = serve
        self._refresh = refresh
        self._unreached: set[str] = set()
        self._standing: dict[str, str] = {}

    def show(self, error: SsmprovError) -> None:
        text = advice.sentence(error)
        if advice.is_hint(error):
            self._notices.show_hint(text)
            return
        actions: list[Action] = []
        if isinstance(error, Unreachable):
            self._unreached.add(text)
            if (serve := self._serve()) is not None:
                actions.append((self._offer, serve))
            actions.append(("Look again", self._refresh))
        self._notices.show_error(text, actions, advice.details(error))

    def hint(self, text: str) -> None:
        """Something to know, for a while."""
        self._notices.show_hint(text)
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(lambda: self._notices.forget(text))
        timer.timeout.connect(timer.deleteLater)
        timer.start(HINT_MS)

    def reached(self) -> None:
        """A broker answers: that none did is no trouble any more."""
        for text in self._unreached:
            self._notices.forget(text)
        self._unreached.clear()

    def stand(self, source: str, text: str, *, error: bool = False) -> None:
        """What a part of the window finds wrong now, '' for nothing: it takes the place of what it found before."""
        if before := self._standing.pop(source, ""):
            self._notices.forget(before)
        if text:
            self._standing[source] = text
            if error:
                self._notices.show_error(text)
            else:
                self._notices.show_hint(text)
