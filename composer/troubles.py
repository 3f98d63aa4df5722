"""Shows problems on the notice bar, with buttons that help, and removes them once they are solved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PyQt6.QtCore import QObject, QTimer

from composer import advice
from composer.panels.notice_bar import NoticeBar
from ssmprov.errors import SsmprovError, Unreachable

HINT_MS = 12_000
"""How long a hint is shown that needs no action."""

Action = tuple[str, Callable[[], None]]


class Troubles(QObject):
    """`offer` is the button text for starting a broker. `serve` returns None while our own broker is running.

    `offers` makes the buttons for the choices of an error: see `transcripts.own.difference`.
    """

    def __init__(
        self,
        notices: NoticeBar,
        offer: str,
        serve: Callable[[], Callable[[], None] | None],
        refresh: Callable[[], None],
        offers: Callable[[Sequence[str]], list[Action]],
    ) -> None:
        super().__init__(notices)
        self._notices = notices
        self._offer = offer
        self._serve = serve
        self._refresh = refresh
        self._offers = offers
        self._differing: set[str] = set()
        self._unreached: set[str] = set()
        self._reported: dict[str, str] = {}

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
            actions.append(("Try again", self._refresh))
        if choices := error.details.get("choices"):
            self._differing.add(text)
            actions = self._offers(choices)
        self._notices.show_error(text, actions, advice.details(error))

    def hint(self, text: str) -> None:
        """Show a hint for a while."""
        self._notices.show_hint(text)
        timer = QTimer(self)
        timer.setSingleShot(True)
        timer.timeout.connect(lambda: self._notices.forget(text))
        timer.timeout.connect(timer.deleteLater)
        timer.start(HINT_MS)

    def reached(self) -> None:
        """A broker answers: remove the notices that said otherwise."""
        for text in self._unreached:
            self._notices.forget(text)
        self._unreached.clear()

    def settled(self) -> None:
        """Remove the notices of a transcript and a context that differ."""
        for text in self._differing:
            self._notices.forget(text)
        self._differing.clear()

    def report(self, source: str, text: str, *, error: bool = False) -> None:
        """Show the problem of one part of the window in place of its previous one. '' means that there is none."""
        if before := self._reported.pop(source, ""):
            self._notices.forget(before)
        if text:
            self._reported[source] = text
            if error:
                self._notices.show_error(text)
            else:
                self._notices.show_hint(text)
