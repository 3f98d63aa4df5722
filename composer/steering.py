"""Manages which model and context the window uses, and what the panels show of them."""

from __future__ import annotations

from collections.abc import Sequence

from PyQt6.QtCore import QObject, pyqtSignal

from clients import Reply
from composer import advice
from composer.branching.forest import Forest
from composer.branching.tree_dock import TreeDock
from composer.conductor import BUSY, Conductor, Wishes
from composer.link import Job
from composer.moves import Moves
from composer.panels.notice_bar import Action, NoticeBar
from composer.panels.sampling_panel import SamplingPanel
from composer.panels.status_line import StatusLine
from composer.panels.workers_panel import WorkersPanel
from composer.watching import Watcher
from ssmprov.errors import SsmprovError
from ssmprov.ops import StatusResult
from transcripts.branches import Scene
from transcripts.own import FORMER, Own, fresh_name, used_before


class Steering(QObject):
    """Tells the conductor what is chosen in the panels, and shows in the panels what the broker reports."""

    reached = pyqtSignal()
    settled = pyqtSignal()  # the transcript and its context agree again

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
        self._used = ""
        self._own = Own("", "")
        """What is shown. The panel differs from it while another context is being opened."""
        self._origin = ""
        self._going_to: Own | None = None
        self._told = ""  # the last notice that transcript and context differ
        conductor.own.changed.connect(self._follow)
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
        workers.model_chosen.connect(self._choose_model)
        workers.context_chosen.connect(lambda name: self.choose(Own(workers.model, name)))

    def start(self, used: str) -> None:
        """Begin with what the panels show. `used` is the context of the last session."""
        self._used = used
        self._own = Own(self._workers.model, self._workers.context)
        self.wish()

    def wish(self) -> None:
        """Use the choices in the panels for the next turn."""
        self._conductor.wishes = Wishes(
            model=self._own.model,
            context=self._own.name if self._own.model else "",
            origin=self._origin,
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

    # -- which context

    def _show(self, own: Own, origin: str = "") -> None:
        """Show a context, and ask for everything that is shown of it."""
        former = self._conductor.wishes
        self._suggested = False
        self._own, self._origin = own, origin
        self._stay()
        self.wish()
        if own != former.own:
            self._moves.forget()
            self._notices.forget(self._told)  # its buttons would act on this context now
            self._told = ""
            self.settled.emit()
        self._show_worker()
        self._conductor.look()
        if own.model != former.model:
            self._watcher.look_at_sets(self._sampling.chosen_set)

    def _follow(self, own: Own | None) -> None:
        """Show the context that the directory names now: the shell tools may have changed it."""
        if own is None:
            return
        if own == self._own:
            self._origin = ""  # it exists now
            self.wish()
            return
        self._show(own)
        if own != self._going_to:
            self._notices.show_hint(f"This directory now continues the context {own}.")

    def choose(self, own: Own) -> None:
        """Make another context that of the directory, with its transcript. The former transcript is kept."""
        former, conductor = self._own, self._conductor
        mine = conductor.scene is not None and conductor.problem is None and former == conductor.own.now
        self._going_to = own

        def chosen(kept: str) -> None:
            self._going_to = None
            self._show(own)
            if kept:
                back: list[Action] = [(f"Go back to {former.name}", lambda: self.choose(former))] if mine else []
                self._notices.show_hint(f"The former transcript is kept in {kept}.", back)

        def failed() -> None:
            self._going_to = None
            self._stay()

        if not self._moves.choose(own, chosen, failed):
            failed()

    def _stay(self) -> None:
        """Have the panel show what is shown."""
        self._workers.set_model(self._own.model)
        self._workers.set_context(self._own.name)

    def _choose_model(self, model: str) -> None:
        """Propose a context of another model. Nothing moves before it reads the transcript or starts a new one."""
        now = self._conductor.own.now
        if self._conductor.busy:
            self._conductor.hint.emit(BUSY)
            self._stay()
        elif now is not None and now.model == model:
            self._show(now)
        else:
            self._suggested = False
            self._propose([model])

    def _propose(self, models: Sequence[str]) -> None:
        """Show a context of one of these models for a directory that has none of them: one that it used before and
        that has read its transcript, or else a new one. Nothing is written before the first turn or move."""
        record, used, shown = self._conductor.record, self._used, self._own

        def work(job: Job) -> tuple[Own, str] | None:
            return used_before(record, job.client, list(models), used)

        def found(former: tuple[Own, str] | None) -> None:
            if self._own != shown:  # another one was chosen in the meantime
                return
            own, origin = former or (Own(models[0], fresh_name(record)), "")
            if own.name == FORMER:  # all directories shared it, so this one gets a copy
                own = Own(own.model, fresh_name(record))
            else:
                origin = ""
            suggested = self._suggested
            self._show(own, origin)
            self._suggested = suggested

        def failed(error: SsmprovError) -> None:
            self._conductor.trouble.emit(error)
            self._stay()

        self._conductor.link.run(work, found, failed)

    def offers(self, choices: Sequence[str]) -> list[Action]:
        """The buttons for what can be done where transcript and context differ."""
        every: dict[str, Action] = {
            "reread": ("Read the transcript anew", self._moves.reread),
            "back": ("Go back to where they agree", self._moves.back),
            "restore": ("Show what the context has read", self._moves.restore_transcript),
            "new": ("Start a new transcript", self._start_new),
        }
        return [every[choice] for choice in choices if choice in every]

    def _start_new(self) -> None:
        self.choose(Own(self._own.model, fresh_name(self._conductor.record)))

    # -- what the broker reports

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
        if self._own.name:
            self._conductor.look()
        elif model := self._own.model:
            others = [found.name for found in status.models if found.name != model] if status is not None else []
            self._propose([model, *others] if self._suggested else [model])
        self.reached.emit()

    def _suggest(self, status: StatusResult) -> None:
        """Choose the default model if nobody has chosen one. Until it is served, another one stands in for it."""
        served = [model.name for model in status.models]
        best = status.default if status.default in served else served[0]
        if not self._workers.model or (self._suggested and not self._conductor.book.text):
            self._workers.set_model(best)
            self._own = Own(best, self._own.name)
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
        problem = self._conductor.problem
        self._line.context(name, scene.steps[0].tokens if scene.steps else 0, problem is not None)
        told = "" if problem is None or self._conductor.record.unfinished else advice.sentence(problem)
        if told != self._told:
            self._notices.forget(self._told)
            self._told = told
            if problem is not None and told:
                self._notices.show_hint(told, self.offers(problem.details["choices"]))
        if problem is None:
            self.settled.emit()

    def _forest(self, forest: Forest | None) -> None:
        why = "" if forest is not None else "Branches appear here when a broker is running."
        self._tree.show_forest(forest, self.workers_of_model(), why)

    def workers_of_model(self) -> list[str]:
        status, model = self._watcher.status, self._conductor.wishes.model
        return [worker.name for worker in status.workers if worker.model == model] if status is not None else []
