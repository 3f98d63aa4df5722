"""Runs the window's actions one at a time: turns stream into the book, then transcript and context are compared."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from PyQt6.QtCore import QObject, QTimer, pyqtSignal

from clients import Client, Reply
from composer.link import Job, Link
from composer.own_context import OwnContext
from composer.reading.book import Book
from composer.shown import Shown, check_shown
from composer.writing.draft import Draft
from ssmprov.commands import Bang
from ssmprov.errors import Cancelled, Conflict, SsmprovError, Unreachable
from transcripts.branches import Change, Scene, highest_closed
from transcripts.own import Own, ready
from transcripts.record import Record, Writer
from transcripts.recorded import UNKNOWN, bang_of, outgoing, send, take_up

T = TypeVar("T")
Compose = Callable[[int], tuple[str, int]]
"""Makes the text of a turn from its number; returns the text and the highest turn number in it."""

CHANGED_MS = 300
"""How long to wait after another program changed the file before looking at it."""

BUSY = "A turn is running. Wait for it to end, or press Esc to stop it."
NO_CONTEXT = "no broker has answered yet, so nothing can be sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The model and context that the next turn uses, and how it is sampled.

    `context` is '' until a broker has answered. It begins with the checkpoint `origin` if it does not exist yet.
    """

    model: str = ""
    context: str = ""
    origin: str = ""
    settings: str = ""
    values: dict[str, float] = field(default_factory=dict)
    seed: int | None = None

    @property
    def own(self) -> Own:
        return Own(self.model, self.context)

    @property
    def sampling(self) -> dict[str, Any]:
        return {"settings": self.settings, "values": dict(self.values), "seed": self.seed}

    @property
    def with_new_seed(self) -> dict[str, Any]:
        """The same sampling with a new seed, because the same seed would give the same reply."""
        return self.sampling | {"seed": secrets.randbits(63)}


@dataclass(frozen=True, slots=True)
class Begun:
    """A turn is about to be sent: `text` goes after byte `at` of the transcript, or at its end if `at` is None."""

    at: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The context and the transcript have moved to what a bang line loads."""

    change: Change


@dataclass(frozen=True, slots=True)
class Sent:
    """A turn that has ended and is recorded."""

    reply: Reply
    change: Change


class Finishing(Client):
    """Finishes an interrupted turn. If the window closes first, the outcome is unknown rather than a failure."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.client.endpoint, agent="composer")
        self._job = job

    def turn(self, *args: Any, **more: Any) -> Reply:
        try:
            return super().turn(*args, **more)
        except Cancelled:
            if not self._job.abandoned:
                raise
            raise Unreachable("the window was closed before the turn had ended") from None


class Conductor(QObject):
    """Runs actions. An action that fails has changed nothing, or its error says what it changed."""

    busy_changed = pyqtSignal(bool)
    trouble = pyqtSignal(object)  # an SsmprovError for the notice bar
    hint = pyqtSignal(str)
    accepted = pyqtSignal()  # the draft was sent
    refused = pyqtSignal(object)  # the Draft of a turn that changed nothing
    placed = pyqtSignal(int)
    progress = pyqtSignal(int, int)
    wrote = pyqtSignal(int, float)  # tokens of the reply, tokens per second
    ended = pyqtSignal(object, float)  # a Reply, and its tokens per second
    scene_changed = pyqtSignal(object)  # a Scene, or None if no broker answers
    changed = pyqtSignal(object)  # the Change that an action made, for the history

    def __init__(self, link: Link, book: Book, record: Record, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.link = link
        self.book = book
        self.record = record
        self.own = OwnContext(record, self)
        self.wishes = Wishes()
        self.scene: Scene | None = None
        self.problem: Conflict | None = None  # transcript and context of the scene differ
        self._job: Job | None = None
        self._looking: Job | None = None
        self._look_again = False
        self._first: tuple[float, int] | None = None
        self._rate = 0.0
        self._draft: Draft | None = None  # what the running action sends
        self._begun = ""  # its text in the transcript
        self._noted = ""  # the id of its request
        self._doubt: tuple[Draft, str, int, str] | None = None  # a sent turn whose outcome is unknown
        self._changed = QTimer(self)
        self._changed.setSingleShot(True)
        self._changed.setInterval(CHANGED_MS)
        self._changed.timeout.connect(self._look_at_change)
        book.changed.connect(lambda _index: self._changed.start())
        book.reset.connect(self._changed.start)

    # -- actions

    @property
    def busy(self) -> bool:
        return self._job is not None

    def may_act(self) -> bool:
        """Whether an action can begin now. Says why if not."""
        if self.busy:
            self.hint.emit(BUSY)
        elif not self.wishes.context:
            self.trouble.emit(Unreachable(NO_CONTEXT))
        return not self.busy and bool(self.wishes.context)

    def act(
        self,
        work: Callable[[Job], T],
        done: Callable[[T], object] | None = None,
        draft: Draft | None = None,
        otherwise: Callable[[], object] | None = None,
    ) -> bool:
        """Start an action unless one is running. `done` is called once the window shows the new transcript.

        `draft` is what it sends; `otherwise` is called if it fails.
        """
        if not self.may_act():
            return False
        self._first, self._rate, self._draft = None, 0.0, draft
        self._begun = self._noted = ""

        def finished(result: T) -> None:
            self._settle()
            if done is not None:
                done(result)
            self.look()

        def failed(error: SsmprovError) -> None:
            begun, noted = self._begun, self._noted and self.record.noted(self._noted)
            self._settle()
            self.trouble.emit(error)
            if draft is not None and not noted:  # other programs' notes do not concern this turn
                self.refused.emit(draft)
            elif draft is not None:
                self._doubt = draft, begun, len(self.book.text), self._noted
                if isinstance(error, UNKNOWN) and not isinstance(error, Unreachable):
                    self._find_out()
            if otherwise is not None:
                otherwise()
            self.look()

        def listen(job: Job) -> None:
            job.text.connect(self._heard)
            job.progress.connect(self.progress)
            job.placed.connect(self.placed)
            job.said.connect(self.hint)
            job.marked.connect(self._marked)

        self._job = self.link.run(work, finished, failed, listen)
        self.busy_changed.emit(True)
        return True

    def _find_out(self) -> None:
        """Check whether a turn whose answer was lost was committed. Record it if so; otherwise restore its text."""

        def work(job: Job) -> None:
            job.said.emit("Checking whether the turn was committed.")
            with self.locked(job):
                pass

        self.act(work)

    def _resolve_doubt(self) -> None:
        """Whoever took the lock has finished the turn in doubt: its text was appended, or it changed nothing."""
        if self._doubt is None or self.record.noted(self._doubt[3]):
            return
        (draft, begun, length, _), self._doubt = self._doubt, None
        if self.book.text.startswith(begun, length):
            self.hint.emit("The turn was committed and is now recorded.")
        else:
            self.refused.emit(draft)

    def stop(self, mode: str = "close") -> None:
        """Stop the running action. What was written so far is kept and closed, or discarded with `drop`."""
        if self._job is not None:
            self._job.stop(mode)

    def _marked(self, mark: object) -> None:
        if isinstance(mark, Moved):
            self.changed.emit(mark.change)
        elif isinstance(mark, Begun):
            self.book.refresh()
            self.book.begin(mark.text, None if mark.at is None else self._characters(mark.at))
            if self._draft is not None:  # other actions do not send the prompt
                self._begun = mark.text
                self.accepted.emit()

    def _heard(self, piece: str, tokens: int) -> None:
        self.book.write(piece)
        now = time.monotonic()
        if self._first is None:
            self._first = now, tokens
        elif now > self._first[0]:
            self._rate = (tokens - self._first[1]) / (now - self._first[0])
        self.wrote.emit(tokens, self._rate)

    def _settle(self) -> None:
        self._job = None
        if self.book.streaming:
            self.book.end()
        else:
            self.book.refresh()
        self.own.look()
        self._resolve_doubt()
        self.busy_changed.emit(False)

    def _characters(self, at: int) -> int:
        """Convert a byte offset in the transcript into a character offset in the book's text."""
        return len(self.book.text.encode("utf-8", "surrogateescape")[:at].decode("utf-8", "surrogateescape"))

    # -- comparing transcript and context

    def branches(self) -> Shown:
        """The context that is shown now. Ask for it before an action begins, not while it waits."""
        return Shown(self.record, self.link.client, self.wishes.own, self.own.now, self.wishes.origin)

    def look(self) -> None:
        """Compare transcript and context in the background."""
        if self._looking is not None:
            self._look_again = True
            return
        if not self.wishes.context:
            self.scene_changed.emit(None)
            return
        branches = self.branches()

        def work(_job: Job) -> tuple[Scene, Conflict | None]:
            scene = branches.scene()
            return scene, branches.problem(scene)

        def seen(found: tuple[Scene | None, Conflict | None]) -> None:
            self._looking = None
            self.scene, self.problem = found
            if self._look_again:
                self._look_again = False
                self.look()
            else:
                self.scene_changed.emit(self.scene)

        self._looking = self.link.run(work, seen, lambda _error: seen((None, None)))

    def _look_at_change(self) -> None:
        """The file has changed: by an action, which compares by itself, or by another program."""
        shown = self.book.text.encode("utf-8", "surrogateescape")
        if not self.busy:
            self._resolve_doubt()
        if not self.busy and (self.scene is None or self.scene.transcript != shown):
            self.look()

    # -- turns

    def launch(self) -> None:
        """Finish an interrupted turn, and set the counter to the highest closed turn of the transcript."""

        def work(job: Job) -> None:
            with self.locked(job) as writer:
                if self.record.exists:
                    writer.set_counter(highest_closed(self.record.read()))

        self.link.run(work, lambda _: self._launched(), self._not_launched, lambda job: job.said.connect(self.hint))

    def _launched(self) -> None:
        if not self.busy:
            self.book.refresh()
        self.look()

    def _not_launched(self, error: SsmprovError) -> None:
        self.trouble.emit(error)
        self.look()

    @contextmanager
    def locked(self, job: Job, shown: Shown | None = None) -> Iterator[Writer]:
        """Take the record's lock in a job, and first finish an interrupted turn. Waiting for it can be stopped.

        `shown` is the context to write with. Raises Conflict if it is no longer the one that the window shows.
        """
        wait = "Waiting: another turn is running on this transcript."
        with self.record.locked(lambda: job.said.emit(wait), job.cancelled) as writer:
            take_up(writer, lambda: job.use(Finishing(job)), job.said.emit)
            if shown is not None:
                shown.take(writer)
            yield writer

    def send(self, draft: Draft) -> bool:
        """Send a draft as PIPE would send it."""
        if problem := draft.problem():
            self.hint.emit(problem)
            return False
        return self.send_text(draft.compose, draft.bang, draft)

    def send_text(
        self,
        compose: Compose,
        bang: str = "",
        draft: Draft | None = None,
        then: Callable[[], object] | None = None,
        otherwise: Callable[[], object] | None = None,
        shown: str | None = None,
    ) -> bool:
        """Send and record a text. A bang line first loads a context, with its transcript.

        `then` is called if it succeeds, `otherwise` if it fails. It fails if the transcript differs from `shown`.
        """
        wishes, here = self.wishes, self.branches()

        def work(job: Job) -> Sent:
            with self.locked(job, here) as writer:
                if shown is not None:
                    check_shown(shown, self.record.read())
                asked = bang_of(bang) if bang else Bang()
                if asked.load and not here.own.meant_by(asked.load):
                    job.marked.emit(Moved(here.load(writer, asked.load)))
                found = ready(writer, self.record, job.client, own=here.own)
                also = "" if here.own.meant_by(asked.save) else asked.save
                if also:
                    here.keep_overwritten(also)
                arguments = {**found.arguments, **wishes.sampling, "settings": asked.settings or wishes.settings}
                number = writer.next_number()
                text, last = compose(number)
                turn = outgoing(writer, text, number, last, bang, arguments=arguments, also=also)
                before = self.record.read()
                job.marked.emit(Begun(None, turn.before))

                def ask(prompt: str, request_id: bytes) -> Reply:
                    self._noted = request_id.hex()
                    return job.ask(prompt, request_id, arguments)

                reply = send(writer, job.client, turn, ask, job.said.emit)
            after = (turn.before + reply.text).encode("utf-8", "surrogateescape")
            change = Change(
                at=len(before), before=b"", after=after, head_before=found.head, head_after=reply.result.object
            )
            return Sent(reply, change)

        def done(sent: Sent) -> None:
            self._sent(sent, wishes)
            if then is not None:
                then()

        return self.act(work, done, draft, otherwise)

    def _sent(self, sent: Sent, wishes: Wishes) -> None:
        self.tell_end(sent.reply)
        if wishes.own == self.wishes.own:
            self.changed.emit(sent.change)

    def tell_end(self, reply: Reply) -> None:
        result = reply.result
        rate = result.reply_tokens / (result.reply_ms / 1000) if result.reply_ms > 0 else self._rate
        self.ended.emit(reply, rate)
