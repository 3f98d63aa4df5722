"""Reroll, edit, fork, go to another checkpoint, undo and redo. Nothing that was written is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PyQt6.QtCore import QObject, pyqtSignal

from clients.requests import Reply
from composer.conductor import Begun, Conductor
from composer.link import Job
from composer.shown import Shown
from ssmprov import wire
from ssmprov.errors import BadRequest, Conflict
from ssmprov.transcript import Turn, header
from ssmprov.transcript import turn as closed_turn
from transcripts.branches import Candidate, Change, Drawing, Scene
from transcripts.own import Own, check_served, go_to, restore

MAX_CHANGES = 200
MAX_CHANGED_BYTES = 64 << 20
GONE_ON = (
    "this cannot be undone or redone any more: something else changed the transcript or the context. The next undo "
    "goes back by one checkpoint, and the tree still has every branch"
)
Moved = tuple[Reply | None, Change]


class Moves(QObject):
    """Changes turns of the transcript, by their index in the book, and keeps the history of changes."""

    history_changed = pyqtSignal()
    forked = pyqtSignal(str)  # the new name

    def __init__(self, conductor: Conductor, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._conductor = conductor
        self._undo: list[Change] = []
        self._redo: list[Change] = []
        self._undrawn: list[tuple[Shown, Drawing]] = []
        self._history = 0  # its number: an action may end after another context was chosen
        conductor.changed.connect(self._remember)

    # -- history

    @property
    def can_undo(self) -> bool:
        scene = self._conductor.scene
        return bool(self._undo) or (scene is not None and len(scene.alignment.points) > 1)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    def forget(self) -> None:
        """Drop the history, because another context was chosen."""
        self._undo.clear()
        self._redo.clear()
        self._history += 1
        self.history_changed.emit()

    def _remember(self, change: Change) -> None:
        self._redo.clear()
        self._push(self._undo, change)

    def _push(self, stack: list[Change], change: Change) -> None:
        stack.append(change)
        while len(stack) > MAX_CHANGES or sum(len(c.before) + len(c.after) for c in stack) > MAX_CHANGED_BYTES:
            del stack[0]
        self.history_changed.emit()

    def undo(self) -> None:
        """Undo the last change. If there is none, go back to the checkpoint before the last one."""
        if self._undo:
            self._travel(self._undo, self._redo)
        else:
            self._step_back()

    def redo(self) -> None:
        if self._redo:
            self._travel(self._redo, self._undo)

    def _travel(self, source: list[Change], target: list[Change]) -> None:
        change = source[-1].back
        branches, history = self._conductor.branches(), self._history

        def work(job: Job) -> Change | None:
            with self._conductor.locked(job, branches) as writer:
                scene = branches.agreed()
                if scene.transcript[change.at :] != change.before or scene.head != change.head_before:
                    return None
                return branches.go(writer, scene, change.at, change.after, change.head_after)

        def done(made: Change | None) -> None:
            if history != self._history:
                return
            if made is None:
                self.forget()  # otherwise this change would block every later undo
                self._conductor.trouble.emit(Conflict(GONE_ON))
                return
            self._push(target, source.pop().back)

        self._conductor.act(work, done)

    def _step_back(self) -> None:
        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, branches) as writer:
                scene = branches.agreed()
                point = scene.alignment.before(len(scene.transcript) - 1)
                if point is None:
                    raise BadRequest("there is nothing to undo")
                return None, branches.go(writer, scene, point.at, b"", point.object)

        self._act(work, lambda change: self._push(self._redo, change))

    # -- one turn again

    def reroll(self, index: int) -> None:
        """Let the model write turn `index` of the book again. What followed it stays on the old branch."""
        turn = self._turn(index)
        if turn is not None:
            self._rewrite(self.byte_of(index), turn.head, **self._conductor.wishes.with_new_seed)

    def edit(self, index: int, role: str, content: str, *, regenerate: bool, reply_role: str) -> None:
        """Change a turn. With `regenerate` the model writes the next turn again; otherwise it reads what follows."""
        turn = self._turn(index)
        if turn is None:
            return
        at = self.byte_of(index)
        edited = closed_turn(turn.number, role, content)
        items = self._conductor.book.items
        following = next((item for item in items[index + 1 :] if isinstance(item, Turn)), None)
        if regenerate:
            next_role = following.role if following is not None else reply_role
            self._rewrite(at, edited + header(turn.number + 1, next_role), **self._conductor.wishes.with_new_seed)
        else:
            rest = "".join(item.text for item in items[index + 1 :])
            self._rewrite(at, edited + rest, max_tokens=0)

    def go_back(self, index: int) -> None:
        """Continue right after turn `index`."""
        self._rewrite(self.byte_of(index + 1), "", max_tokens=0)

    def _rewrite(self, at: int, text: str, **limits: Any) -> None:
        """Replace the transcript after byte `at` with `text` and the model's reply to it."""
        shown = self._conductor.book.text

        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            scene = branches.agreed(shown)
            point = scene.alignment.exact(at)
            if not text and point is not None:
                with self._conductor.locked(job, branches) as writer:
                    return None, branches.go(writer, scene, at, b"", point.object)
            drawing = branches.draw(scene, at, text.encode("utf-8", "surrogateescape"))
            return self._draw(job, branches, scene, drawing, **limits)

        self._act(work)

    def _draw(self, job: Job, branches: Shown, scene: Scene, drawing: Drawing, **limits: Any) -> Moved:
        job.marked.emit(Begun(drawing.point.at, drawing.tail.decode("utf-8", "surrogateescape")))
        try:
            reply = job.ask(drawing.prompt, wire.new_id(), branches.arguments(drawing, 0, **limits))
        except Exception:
            self._undrawn.append((branches, drawing))
            raise
        candidate = branches.drawn(drawing, 0, reply)
        with self._conductor.locked(job, branches) as writer:
            return reply, branches.pick(writer, scene, candidate)

    def _act(
        self,
        work: Callable[[Job], Moved],
        remember: Callable[[Change], None] | None = None,
        then: Callable[[], object] = lambda: None,
    ) -> None:
        history = self._history

        def moved(found: Moved) -> None:
            reply, change = found
            if reply is not None:
                self._conductor.tell_end(reply)
            then()
            if history != self._history:  # another context was chosen in the meantime
                return
            if change.before != change.after or change.head_before != change.head_after:
                (remember or self._remember)(change)

        self._conductor.act(work, moved, otherwise=self._clear)

    def _clear(self) -> None:
        """Remove the names of failed drawings in the background: without a worker, that can take long."""
        while self._undrawn:
            branches, drawing = self._undrawn.pop()
            self._conductor.link.run(lambda _job, b=branches, d=drawing: b.undraw(d))  # type: ignore[misc]

    # -- where transcript and context differ

    def reread(self) -> None:
        """Empty the context and let it read the whole transcript."""
        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            scene = branches.scene()
            if not scene.transcript:
                raise BadRequest("there is no transcript to read yet")
            return self._draw(job, branches, scene, branches.reread(scene), max_tokens=0)

        self._act(work)

    def back(self) -> None:
        """Go back to where transcript and context agree."""
        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, branches) as writer:
                scene = branches.scene()
                return None, branches.go(writer, scene, scene.meeting.at, b"", scene.meeting.object)

        self._act(work)

    def restore_transcript(self) -> None:
        """Show what the context has read. The transcript is kept beside it."""
        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, branches) as writer:
                head, before = branches.head(), branches.record.read()
                restore(writer, branches.record, job.client, branches.own)
                after = branches.record.read()
                return None, Change(at=0, before=before, after=after, head_before=head, head_after=head)

        self._act(work)

    def choose(self, own: Own, chosen: Callable[[str], object], otherwise: Callable[[], object]) -> bool:
        """Make another context that of the directory, with its transcript. A new one is empty.

        `chosen` gets the name of the file in which the former transcript is kept, '' if it was empty.
        """
        branches = self._conductor.branches()

        def work(job: Job) -> str:
            with self._conductor.locked(job, branches) as writer:
                check_served(job.client, own)
                return restore(writer, branches.record, job.client, own)

        return self._conductor.act(work, chosen, otherwise=otherwise)

    # -- other checkpoints

    def go_to(self, object_id: str) -> None:
        """Continue from any checkpoint of the tree, with the transcript of that checkpoint."""

        branches = self._conductor.branches()

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, branches) as writer:
                return None, go_to(writer, branches, object_id)

        self._act(work)

    def pick(self, branches: Shown, scene: Scene, candidate: Candidate) -> None:
        """Continue with one of several rerolls of the context of these branches."""

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, branches) as writer:
                return None, branches.pick(writer, scene, candidate)

        self._act(work)

    def fork(self, index: int, name: str, worker: str = "") -> None:
        """Name the context as it was right after turn `index`; pin it to a worker if one is given."""
        shown = self._conductor.book.text
        at = self.byte_of(index + 1)

        branches = self._conductor.branches()

        def work(job: Job) -> str:
            scene = branches.agreed(shown)
            point = scene.alignment.exact(at)
            branches.check_free(name, scene.transcript[:at])
            if point is not None and point.object:
                branches.client.fork(f"#{point.object}", [name], model=branches.model, on=[worker] if worker else ())
            else:
                drawing = branches.draw(scene, at, b"", name=name)
                try:
                    arguments = branches.arguments(drawing, 0, max_tokens=0)
                    job.ask(drawing.prompt, wire.new_id(), arguments)
                except Exception:
                    self._undrawn.append((branches, drawing))
                    raise
                if worker:
                    branches.client.move(name, worker, model=branches.model)
            branches.keep_as(name, scene.transcript[:at])
            return name

        self._conductor.act(work, self.forked.emit, otherwise=self._clear)

    def fork_object(self, object_id: str, name: str, worker: str = "") -> None:
        """Give a checkpoint of the tree a name."""

        model = self._conductor.wishes.model

        def work(job: Job) -> str:
            job.client.fork(f"#{object_id}", [name], model=model, on=[worker] if worker else ())
            return name

        self._conductor.act(work, self.forked.emit)

    def load(self, ref: str, then: Callable[[], object]) -> None:
        """Continue with a copy of another context, with its transcript."""
        here = self._conductor.branches()
        target = here.copying(ref)

        def work(job: Job) -> Moved:
            with self._conductor.locked(job, here) as writer:
                check_served(job.client, target.own)
                return None, target.load(writer, ref)

        self._act(work, then=then)

    # -- places

    def _turn(self, index: int) -> Turn | None:
        items = self._conductor.book.items
        item = items[index] if 0 <= index < len(items) else None
        if isinstance(item, Turn):
            return item
        self._conductor.hint.emit("Choose a turn first: click it, or press Alt+Up or Alt+Down.")
        return None

    def byte_of(self, index: int) -> int:
        """The byte of the transcript at which item `index` begins."""
        items = self._conductor.book.items[:index]
        return sum(len(item.text.encode("utf-8", "surrogateescape")) for item in items)
