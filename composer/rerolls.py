"""Rerolls: several replies at once, spread over the workers. You pick one; the others stay as branches."""

from __future__ import annotations

from PyQt6.QtCore import QObject
from PyQt6.QtWidgets import QWidget

from composer.branching.rerolls import RerollPicker
from composer.conductor import Conductor
from composer.link import Job
from composer.moves import Moves
from composer.shown import Shown
from ssmprov import wire
from ssmprov.errors import SsmprovError
from ssmprov.transcript import Turn
from transcripts.branches import Candidate, Drawing, Scene


class Rerolls(QObject):
    """Writes replies without changing the transcript. You can write on, but then you cannot pick one of them."""

    def __init__(self, conductor: Conductor, moves: Moves, window: QWidget) -> None:
        super().__init__(window)
        self._conductor = conductor
        self._moves = moves
        self._window = window
        self._picker: RerollPicker | None = None
        self._jobs: list[Job] = []
        self.found: dict[int, Candidate] = {}
        self._asked: tuple[int, bytes, int] | None = None
        self._scene: Scene | None = None
        self._shown = ""  # the transcript when the replies were requested
        self._branches: Shown | None = None
        self._drawing = 0  # its number: late signals of an earlier drawing are ignored

    def start(self, turn: Turn, at: int, count: int) -> None:
        """Write `count` other texts for the turn that begins at byte `at` of the transcript."""
        if not self._conductor.may_act():
            return
        self._asked = at, turn.head.encode("utf-8", "surrogateescape"), count
        self._shown = self._conductor.book.text
        self._branches = self._conductor.branches()
        self._draw(more=False)

    def _draw(self, *, more: bool) -> None:
        assert self._asked is not None, "start sets it"
        assert self._branches is not None, "start sets it"
        at, text, count = self._asked
        shown, branches = self._shown, self._branches

        def work(_job: Job) -> tuple[Scene, Drawing]:
            scene = branches.agreed(shown)
            return scene, branches.draw(scene, at, text, count)

        def drawn(made: tuple[Scene, Drawing]) -> None:
            if branches is self._branches:
                self._drawn(branches, *made, more=more)
            else:  # another drawing has started, so nobody needs the names of this one
                self._conductor.link.run(lambda _job: branches.undraw(made[1]))

        self._conductor.link.run(work, drawn, self._conductor.trouble.emit)

    def _drawn(self, branches: Shown, scene: Scene, drawing: Drawing, *, more: bool) -> None:
        self._scene = scene
        picker = self._open()
        if more:
            first = len(self._jobs)
            picker.add(drawing.workers)
        else:
            first = 0
            self._drawing += 1
            self.found.clear()
            self._jobs.clear()
            picker.begin(drawing.workers)
        for index in range(len(drawing.names)):
            self._one(picker, branches, drawing, index, first + index)
        picker.show()
        picker.raise_()

    def _open(self) -> RerollPicker:
        if self._picker is None:
            self._picker = RerollPicker(self._window)
            self._picker.picked.connect(self._picked)
            self._picker.stop_wanted.connect(self.stop)
            self._picker.more_wanted.connect(self.more)
            self._picker.closed.connect(self.stop)
        return self._picker

    def _one(self, picker: RerollPicker, branches: Shown, drawing: Drawing, index: int, card: int) -> None:
        this = self._drawing
        arguments = branches.arguments(drawing, index, **self._conductor.wishes.with_new_seed)

        def work(job: Job) -> tuple[Candidate, str]:
            reply = job.ask(drawing.prompt, wire.new_id(), arguments)
            result = reply.result
            summary = f"{result.reply_tokens} tokens · {result.worker} · ended by {result.stop}"
            return branches.drawn(drawing, index, reply), summary

        def done(made: tuple[Candidate, str]) -> None:
            self._conductor.look()
            if this == self._drawing:
                self.found[card] = made[0]
                picker.finish(card, made[1])

        def failed(error: SsmprovError) -> None:
            self._conductor.link.run(lambda _job: branches.undrawn(drawing, index))
            if this == self._drawing:
                picker.fail(card, error.message)

        def listen(job: Job) -> None:
            job.text.connect(lambda piece, _tokens: picker.write(card, piece) if this == self._drawing else None)
            job.progress.connect(lambda *sizes: picker.progress(card, *sizes) if this == self._drawing else None)
            job.placed.connect(lambda place: picker.queued(card, place) if this == self._drawing else None)

        self._jobs.append(self._conductor.link.run(work, done, failed, listen))

    def stop(self) -> None:
        """Stop the replies that are still being written, and keep what they have."""
        for job in self._jobs:
            job.stop("close")

    def more(self) -> None:
        """Write the same number of replies again, next to the existing ones."""
        self._draw(more=True)

    def _picked(self, index: int) -> None:
        drawn, now = self._branches, self._conductor.branches()
        if index in self.found and self._scene is not None and drawn is not None:
            if drawn.own != now.own:
                self._conductor.hint.emit(f"These replies are for {drawn.own}. Choose that context first.")
                return
            self._moves.pick(drawn, self._scene, self.found[index])
            self.stop()
            if self._picker is not None:
                self._picker.close()
