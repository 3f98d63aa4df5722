"""Gets what the panels show of the broker: its state every second, and the tree and the sampling sets on request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from PyQt6.QtCore import QObject, QTimer, pyqtSignal

from clients import Client
from composer.branching.forest import Forest, workers_of
from composer.conductor import Conductor
from composer.link import Job
from ssmprov.errors import NotFound, SsmprovError
from ssmprov.ops import Row, SettingsNames, StatusResult, Step

T = TypeVar("T")

POLL_MS = 1000
LOG_LIMIT = 1000
TREE_LIMIT = 1000
NAMES_LIMIT = 5000


class Watcher(QObject):
    """Asks the broker, but never for the same thing twice at the same time."""

    status_changed = pyqtSignal(object)  # StatusResult, or None if no broker answers
    reached = pyqtSignal()  # a broker started to answer, or the served models changed
    forest_changed = pyqtSignal(object)  # Forest or None
    names_changed = pyqtSignal(list)
    sets_changed = pyqtSignal(list, str)
    values_changed = pyqtSignal(object)  # the values of the chosen set
    unreached = pyqtSignal(object)  # the error, when the broker stops answering

    def __init__(self, conductor: Conductor, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._conductor = conductor
        self.status: StatusResult | None = None
        self.forest: Forest | None = None
        self.names: list[str] = []
        self._known: tuple[str, ...] | None = None
        self._asked: set[str] = set()
        self._again: dict[str, Callable[[], None]] = {}
        self._timer = QTimer(self)
        self._timer.setInterval(POLL_MS)
        self._timer.timeout.connect(self.poll)

    def start(self) -> None:
        self._timer.start()
        self.poll()

    def stop(self) -> None:
        self._timer.stop()

    # -- the broker's state

    def poll(self) -> None:
        if "status" not in self._asked:
            self._ask("status", lambda client: client.status(), self._seen, self._unseen)

    def _seen(self, status: StatusResult) -> None:
        self.status = status
        models = tuple(sorted(model.name for model in status.models))
        news = models != self._known and bool(models)
        self._known = models
        self.status_changed.emit(status)
        if news:
            self.reached.emit()

    def _unseen(self, error: SsmprovError) -> None:
        first = self._known is not None or self.status is None
        self.status, self._known = None, None
        self.status_changed.emit(None)
        if first:
            self.unreached.emit(error)

    # -- the tree

    def look_at_tree(self) -> None:
        """Ask for the tree. While a request is running, ask once more after it."""
        wishes = self._conductor.wishes
        if not wishes.context:
            return

        def ask(client: Client) -> tuple[Forest, list[str]]:
            tree = client.tree(model=wishes.model, limit=TREE_LIMIT).steps
            log: list[Step]
            try:
                log = client.log(wishes.context, model=wishes.model, limit=LOG_LIMIT).steps
            except NotFound:
                log = (
                    client.log(f"#{wishes.origin}", model=wishes.model, limit=LOG_LIMIT).steps if wishes.origin else []
                )
            rows = self._rows(client, wishes.model)
            status = self.status
            workers = workers_of(status, wishes.model) if status is not None else {}
            return Forest.build(tree, log, rows, workers, wishes.context), sorted(rows)

        self._ask("tree", ask, self._planted, lambda _error: self.forest_changed.emit(None), self.look_at_tree)

    @staticmethod
    def _rows(client: Client, model: str) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        after = ""
        while len(rows) < NAMES_LIMIT:
            page = client.ls(model=model, after=after, limit=1000)
            rows.update({row.name: row for row in page.rows})
            if not page.more or not page.rows:
                break
            after = page.rows[-1].name
        return rows

    def _planted(self, found: tuple[Forest, list[str]]) -> None:
        self.forest, self.names = found
        self.forest_changed.emit(self.forest)
        self.names_changed.emit(self.names)

    # -- sampling sets

    def look_at_sets(self, chosen: str = "") -> None:
        """Ask for the model's sets, and for the values of one of them."""
        model = self._conductor.wishes.model
        if not model:
            return

        def told(found: SettingsNames) -> None:
            self.sets_changed.emit(found.names, found.default)
            self.look_at_values(chosen if chosen in found.names else "")

        self._ask("sets", lambda client: client.settings_ls(model=model), told, self._conductor.trouble.emit)

    def look_at_values(self, chosen: str) -> None:
        model = self._conductor.wishes.model
        if model:
            self._ask(
                "values",
                lambda client: client.settings_show(chosen, model=model).values,
                self.values_changed.emit,
                self._conductor.trouble.emit,
                lambda: self.look_at_values(chosen),
            )

    # -- asking

    def _ask(
        self,
        what: str,
        ask: Callable[[Client], T],
        told: Callable[[T], object],
        failed: Callable[[SsmprovError], object],
        again: Callable[[], None] | None = None,
    ) -> None:
        if what in self._asked:
            if again is not None:
                self._again[what] = again
            return
        self._asked.add(what)

        def work(job: Job) -> T:
            return ask(job.client)

        def ended(tell: Callable[[T], object] | Callable[[SsmprovError], object], value: object) -> None:
            self._asked.discard(what)
            tell(value)  # type: ignore[arg-type]
            if (repeat := self._again.pop(what, None)) is not None:
                repeat()

        self._conductor.link.run(work, lambda value: ended(told, value), lambda error: ended(failed, error))
