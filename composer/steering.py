"""Manages which model and context the window uses, and what the panels show of them."""

from __future__ import annotations

from collections.abc import Callable

from PyQt6.QtCore import QObject, pyqtSignal

from clients import Reply
from composer.branching.forest import Forest
from composer.branching.tree_dock import TreeDock
from composer.conductor import Conductor, Wishes
from composer.moves import Moves
from composer.panels.notice_bar import NoticeBar
from composer.panels.sampling_panel import SamplingPanel
from composer.panels.status_line import StatusLine
from composer.panels.workers_panel import WorkersPanel
from composer.watching import Watcher
from ssmprov.ops import StatusResult
from transcripts.branches import Scene
from transcripts.own import FORMER


class Steering(QObject):
    """Tells the conductor what is chosen in the panels, and shows in the panels what the broker reports."""

    reached = pyqtSignal()

    def __init__(
        self,
        conductor: Conductor,
        moves: Moves,
        watcher: Watcher,
        workers: WorkersPanel,
        sampling: SamplingPanel,
        tree: TreeDock,
        line: StatusLine,
        notices: NoticeBar,
    ) -> None:
        super().__init__(conductor)
        self._conductor = conductor
        self._moves = moves
        self._watcher = watcher
        self._workers = workers
        self._sampling = sampling
        self._tree = tree
        self._line = line
        self._notices = notices
        self._answers = False
        self._suggested = False
        self._told_differs = ""
        self._former = ""  # the context of this transcript, if another one was chosen since
        conductor.wrote.connect(self._wrote)
        conductor.ended.connect(self._ended)
        conductor.placed.connect(line.queued)
        conductor.progress.connect(line.reading)
        conductor.trouble.connect(lambda _error: line.idle("Ready" if self._answers else "No broker answers"))
        conductor.scene_changed.connect(self._scene)
        watcher.status_changed.connect(self._status)
        watcher.reached.connect(self._reached)
        watcher.forest_changed.connect(self._forest)
        watcher.names_changed.connect(workers.set_contexts)
        watcher.sets_changed.connect(sampling.set_sets)
        watcher.values_changed.connect(sampling.set_values)
        sampling.set_chosen.connect(watcher.look_at_values)
        sampling.changed.connect(self.wish)
        workers.model_chosen.connect(lambda _name: self._choose())
        workers.context_chosen.connect(lambda _name: self._choose())

    def wish(self) -> None:
        """Use the choices in the panels for the next turn."""
        self._conductor.wishes = Wishes(
            model=self._workers.model,
            context=self._workers.context or FORMER,
            settings=self._sampling.chosen_set,
            values=self._sampling.overrides(),
            seed=self._sampling.seed,
        )

    def refresh(self) -> None:
        """Ask for everything that is shown."""
        self._conductor.book.refresh()
        self._watcher.poll()
        self._watcher.look_at_sets(self._sampling.chosen_set)
        self._conductor.look()

    def _choose(self) -> None:
        """Switch to another model or context, and ask for everything that is shown of it."""
        self._suggested = False
        former = self._conductor.wishes
        scene = self._conductor.scene
        if scene is not None and not scene.alignment.differs:
            self._former = former.context
        self.wish()
        self._told_differs = ""
        self._moves.forget()
        self._show_worker()
        self._conductor.look()
        if former.model != self._conductor.wishes.model:
            self._watcher.look_at_sets(self._sampling.chosen_set)

    def _status(self, status: StatusResult | None) -> None:
        self._workers.show_status(status)
        self._show_worker()
        if status is None:
            self._line.idle("No broker answers")
            if self._watcher.forest is None:
                self._forest(None)
        elif not self._answers and not self._conductor.busy:
            self._line.idle("Ready")
        self._answers = status is not None

    def _show_worker(self) -> None:
        """Show the worker that the context is pinned to."""
        status, wishes = self._watcher.status, self._conductor.wishes
        if status is not None:
            self._workers.set_worker(status.pins.get(f"{wishes.model}:{wishes.context}", ""))

    def _reached(self) -> None:
        status = self._watcher.status
        if status is not None:
            self._suggest(status)
        self.wish()
        self._watcher.look_at_sets(self._sampling.chosen_set)
        self._conductor.look()
        self.reached.emit()

    def _suggest(self, status: StatusResult) -> None:
        """Choose the default model if nobody has chosen one. Until it is served, another one stands in for it."""
        served = [model.name for model in status.models]
        best = status.default if status.default in served else served[0]
        if not self._workers.model or (self._suggested and not self._conductor.book.text):
            self._workers.set_model(best)
            self._suggested = True

    def _wrote(self, tokens: int, rate: float) -> None:
        status, wishes = self._watcher.status, self._conductor.wishes
        worker = "" if status is None else status.contexts.get(f"{wishes.model}:{wishes.context}", "")
        self._line.writing(tokens, rate, worker)

    def _ended(self, reply: Reply, rate: float) -> None:
        result = reply.result
        self._line.ended(result.stop, result.reply_tokens, rate, result.worker)

    def _scene(self, scene: Scene | None) -> None:
        name = self._conductor.wishes.context
        self._watcher.look_at_tree()
        if scene is None:
            return
        differs = scene.alignment.differs
        self._line.context(name, scene.steps[0].tokens if scene.steps else 0, differs)
        if differs and self._told_differs != f"{name} {scene.head}":
            self._told_differs = f"{name} {scene.head}"
            actions: list[tuple[str, Callable[[], None]]] = [("Read this transcript", self._moves.reread)]
            if scene.head:
                own = "Show its own transcript"
                former = self._former or name
                actions.append((own, lambda: self._moves.show_transcript_of(name, former, self.refresh)))
            self._notices.show_hint(f"The context {name} has not read all of this transcript.", actions)

    def _forest(self, forest: Forest | None) -> None:
        why = "" if forest is not None else "Branches appear here when a broker is running."
        self._tree.show_forest(forest, self.workers_of_model(), why)

    def workers_of_model(self) -> list[str]:
        status, model = self._watcher.status, self._conductor.wishes.model
        return [worker.name for worker in status.workers if worker.model == model] if status is not None else []
