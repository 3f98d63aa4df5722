"""The branches of a transcript: one directory's transcript and one context, which move back and forth together.

The context NAME is at the end of the transcript. Moving elsewhere leaves a branch behind: its checkpoint gets the
name NAME.1, NAME.2 ..., and the transcript as it was is kept in `.transcript.NAME.1.txt`. The name then moves by
compare-and-swap, then the transcript. After a crash between the two, the next process that takes the lock finishes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ssmprov import durable, encoding
from ssmprov.errors import BadRequest, Conflict, NotFound, SsmprovError
from ssmprov.names import MAX_NAME
from ssmprov.ops import Row, Step
from ssmprov.transcript import turns_of
from transcripts.alignment import Alignment, Point, Route, align, as_read, common, route
from transcripts.record import MAX_COUNTER, TRANSCRIPT, Moving, Record, Writer, digest_of

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply

MAX_STEPS = 5000
"""The most steps of a lineage that are matched against a transcript."""

TRIES = 20
NO_HEAD = "none"
_NUMBER = 10
"""The most characters of a branch's number, with its dot."""
_MAX_FILE = 200
"""The most bytes of a name inside a file name, which may have 255 bytes in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A transcript and its context at one moment. `head` is '' if there is no context yet."""

    transcript: bytes
    head: str
    steps: tuple[Step, ...]
    text: bytes
    alignment: Alignment

    @property
    def meeting(self) -> Point:
        """The last place up to which the transcript and one of the context's steps agree from the beginning."""
        points = common(self.transcript, self.steps, self.text)
        return points[-1] if points else Point(0, "")

    @property
    def agrees(self) -> bool:
        """Whether the context has read exactly the transcript, apart from recorded bang lines."""
        point = self.meeting
        return (point.at, point.object) == (len(self.transcript), self.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a move changed, so that it can be undone: the transcript from byte `at` on, and the head."""

    at: int
    before: bytes
    after: bytes
    head_before: str
    head_after: str

    @property
    def back(self) -> Change:
        return Change(
            at=self.at,
            before=self.after,
            after=self.before,
            head_before=self.head_after,
            head_after=self.head_before,
        )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A reply that was drawn but is not in the transcript: its name, its checkpoint, and the text `tail` with which the
    transcript would continue at byte `at`."""

    name: str
    object: str
    at: int
    tail: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What to read after a checkpoint to draw replies, and the names to save them under.

    The transcript is `lead`, then `tail`, then the reply. `tail` may contain lines that no context reads.
    """

    point: Point
    prompt: str
    names: tuple[str, ...]
    lead: bytes
    tail: bytes
    workers: tuple[str, ...] = ()


class Branches:
    """All methods block, and may raise any error of `ssmprov.errors`, or OSError.

    `origin` is the checkpoint that the context begins with, if it does not exist yet.
    """

    def __init__(self, record: Record, client: Client, model: str, name: str, origin: str = "") -> None:
        self.record = record
        self.client = client
        self.model = model
        self.name = name
        self.origin = origin
        self.row = name if _roomy(name) else f"{name[:60]}-{_digest(name)}"
        """The prefix of its branches' names: its own name, if that leaves room for a number."""

    def scene(self) -> Scene:
        """Read both now."""
        transcript = self.record.read()
        head = self.head()
        if not head:
            return Scene(transcript=transcript, head="", steps=(), text=b"", alignment=align(transcript, (), b""))
        steps = self.lineage(head)
        text = self.text(head)
        alignment = align(transcript, steps, text)
        return Scene(transcript=transcript, head=head, steps=tuple(steps), text=text, alignment=alignment)

    def head(self) -> str:
        try:
            return self.client.show(self.name, model=self.model).row.object
        except NotFound:
            return self.origin

    def begin(self) -> None:
        """Make the context if it does not exist yet, so that it can be moved."""
        if self.origin:
            with contextlib.suppress(Conflict):  # it exists
                self.client.fork(f"#{self.origin}", [self.name], model=self.model)
            self.origin = ""

    def text(self, object_id: str) -> bytes:
        """The text that a checkpoint has read, as far as it is known."""
        return self.client.text(f"#{object_id}", model=self.model, since_root=True).encode()

    def lineage(self, head: str) -> list[Step]:
        """The steps up to a checkpoint, newest first; of a very long lineage the newest ones."""
        steps: list[Step] = []
        before = ""
        while len(steps) < MAX_STEPS:
            page = self.client.log(f"#{head}", model=self.model, limit=1000, before=before)
            steps += page.steps
            if not page.more or not page.steps:
                break
            before = page.steps[-1].object
        return steps

    # -- where things stand

    def base(self, scene: Scene, at: int) -> Point:
        """The nearest checkpoint at or before byte `at` of the transcript.

        Raises BadRequest if the context has not read that part of the transcript.
        """
        point = scene.alignment.before(at)
        if point is None:
            raise BadRequest(
                f"{self.name} has not read this part of the transcript: choose a later turn, or read the transcript "
                "anew"
            )
        return point

    def reread(self, scene: Scene) -> Drawing:
        """Prepare to read the whole transcript into an empty context."""
        return Drawing(
            point=Point(0, ""),
            prompt=encoding.without_bom(scene.transcript).decode("utf-8", "surrogateescape"),
            names=tuple(self.fresh()),
            lead=b"",
            tail=scene.transcript,
        )

    def route(self, scene: Scene, object_id: str) -> Route:
        """How to turn the transcript into that of any other checkpoint of this model."""
        if (point := scene.alignment.of(object_id)) is not None:
            return Route(point.at, b"")
        return route(scene.transcript, scene.alignment, scene.steps, scene.text, self.text(object_id))

    # -- branches

    def file_of(self, branch: str) -> Path:
        """The file in which the transcript of a branch is kept."""
        return file_of(self.record, branch)

    def fresh(self, count: int = 1) -> list[str]:
        """Names for new branches that are not in use and have no file."""
        taken = {int(found) for found in self._numbers()}
        first = max(taken, default=0) + 1
        return [f"{self.row}.{number}" for number in range(first, first + count)]

    def _numbers(self) -> Iterable[str]:
        rule = re.compile(re.escape(self.row) + r"\.([0-9]{1,9})\Z")
        for row in self.names(f"{self.row}."):
            if found := rule.match(row.name):
                yield found[1]
        files = re.compile(re.escape(f".transcript.{quote(self.row, safe='')}.") + r"([0-9]{1,9})\.txt\Z")
        for path in self.record.directory.glob(".transcript.*.txt"):
            if found := files.match(path.name):
                yield found[1]

    def names(self, prefix: str = "", limit: int = 5000) -> list[Row]:
        rows: list[Row] = []
        while len(rows) < limit:
            page = self.client.ls(prefix, model=self.model, after=rows[-1].name if rows else "", limit=1000)
            rows += page.rows
            if not page.more or not page.rows:
                break
        return rows

    def keep(self, object_id: str, transcript: bytes) -> str:
        """Keep a checkpoint and its transcript as a branch. Returns its name; a second call returns the same name."""
        for name in self.client.show(f"#{object_id}", model=self.model).names if object_id else []:
            if name.startswith(f"{self.row}.") and holds(self.file_of(name), transcript):
                return name
        for _ in range(TRIES):
            (name,) = self.fresh()
            if object_id:
                try:
                    self.client.fork(f"#{object_id}", [name], model=self.model)
                except Conflict:  # another window took the name
                    continue
            try:
                self._write(self.file_of(name), transcript)
            except OSError:
                if object_id:
                    self.client.rm([name], model=self.model)
                raise
            return name
        raise Conflict(f"no name was free for the branch left behind: other programs keep taking {self.row}.N")

    def check_free(self, name: str, transcript: bytes) -> None:
        """Raises Conflict if the file of that name keeps another transcript: that of a branch since removed."""
        path = self.file_of(name)
        if path.exists() and not holds(path, transcript):
            raise Conflict(f"another transcript is kept in {path.name}: choose another name, or move that file away")

    def keep_as(self, name: str, transcript: bytes) -> None:
        """Keep a transcript under a name that a person chose."""
        self._write(self.file_of(name), transcript)

    def _write(self, path: Path, transcript: bytes) -> None:
        """The kept file gets the permissions of the transcript."""
        durable.replace(path, transcript)
        with contextlib.suppress(OSError):
            path.chmod((self.record.directory / TRANSCRIPT).stat().st_mode & 0o777)

    def kept_transcript(self, object_id: str) -> bytes | None:
        """The transcript that was kept with a checkpoint, if there is one and the checkpoint has read it."""
        names = self.client.show(f"#{object_id}", model=self.model).names
        files = [path for name in names if (path := self.file_of(name)).is_file()]
        if not files:
            return None
        steps, text = self.lineage(object_id), self.text(object_id)
        for path in files:
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                points = common(data, steps, text)
                if points and (points[-1].at, points[-1].object) == (len(data), object_id):
                    return data
        return None

    # -- going elsewhere

    def go(self, writer: Writer, scene: Scene, at: int, tail: bytes, object_id: str) -> Change:
        """Move the context to `object_id` ('' removes it) and continue the transcript with `tail` after byte `at`.

        What is left behind is kept as a branch first. Raises Conflict and changes nothing if transcript or context
        have changed since the scene was read.
        """
        self.check(scene)
        change = Change(at=at, before=scene.transcript[at:], after=tail, head_before=scene.head, head_after=object_id)
        if not change.before and object_id == scene.head and not tail:
            return change
        kept = ""
        if change.before or not self.leads(scene.head, object_id):
            kept = self.keep(scene.head, scene.transcript)
        after = scene.transcript[:at] + tail
        move = Moving(
            model=self.model,
            name=self.name,
            head=scene.head,
            object=object_id,
            at=at,
            tail=tail.decode("utf-8", "surrogateescape"),
            sha256=digest_of(scene.transcript),
            counter=highest_closed(after),
            kept=self.file_of(kept).name if kept else "",
            context=f"{self.model}:{self.name}",
        )
        writer.move(move)
        try:
            self._move(scene.head, object_id)
        except (Conflict, NotFound):
            writer.moved()
            raise
        if not writer.carry_out_move(move):
            raise Conflict(f"{TRANSCRIPT} was changed by another program, so it was left as it is")
        return change

    def check(self, scene: Scene) -> None:
        """Raises Conflict if transcript or context have changed since."""
        if self.record.read() != scene.transcript:
            raise Conflict("the transcript has changed in the meantime: look at it and try again")
        if self.head() != scene.head:
            raise Conflict(
                f"{self.name} has changed in the meantime, but this transcript has not: look at it and try again"
            )

    def _move(self, head: str, object_id: str) -> None:
        if not object_id:
            if head:
                self.client.rm([self.name], model=self.model)
        elif head != object_id:
            self.client.fork(f"#{object_id}", [self.name], model=self.model, overwrite=bool(head), if_head=head or None)

    def leads(self, head: str, object_id: str) -> bool:
        """Whether a checkpoint descends from the head, so that the head is not left behind."""
        if not head or not object_id or head == object_id:
            return not head or bool(object_id)
        return any(step.object == head for step in self.lineage(object_id))

    # -- other replies beside the transcript

    def draw(self, scene: Scene, at: int, text: bytes, count: int = 1, name: str = "") -> Drawing:
        """Prepare to read `text` at byte `at` of the transcript `count` times, each time under a name.

        Several are spread over the workers. `name` is for a single one; raises Conflict if it is taken.
        """
        point = self.base(scene, at)
        names = [name] if name else self.fresh(count)
        workers = ("",) * count
        for attempt in range(TRIES if point.object else 0):
            try:
                made = self.client.fork(f"#{point.object}", names, model=self.model, spread=count > 1)
                workers = tuple(made.pins.get(name, "") for name in names)
                break
            except Conflict:  # another window took one of them
                if name or attempt + 1 == TRIES:
                    raise
                names = self.fresh(count)
        prompt = (as_read(scene.transcript, scene.alignment, point.at, at) + text).decode("utf-8", "surrogateescape")
        tail = scene.transcript[point.at : at] + text
        lead = scene.transcript[: point.at]
        return Drawing(point=point, prompt=prompt, names=tuple(names), lead=lead, tail=tail, workers=workers)

    def arguments(self, drawing: Drawing, index: int, **more: Any) -> dict[str, Any]:
        """The arguments of the turn that draws one of them."""
        name = drawing.names[index]
        begun = bool(drawing.point.object)
        return {
            "model": self.model,
            "context": name if begun else "",
            "save": name,
            "if_head": drawing.point.object or NO_HEAD,
            **more,
        }

    def drawn(self, drawing: Drawing, index: int, reply: Reply) -> Candidate:
        """Keep a drawn reply as a separate branch, with its transcript."""
        name = drawing.names[index]
        tail = drawing.tail + reply.text.encode()
        path = self.file_of(name)
        if not path.exists() or drawing.point.object:
            self._write(path, drawing.lead + tail)
        elif not holds(path, drawing.lead + tail):  # what was left behind meanwhile, without a context, took the number
            former, name = name, self.keep(reply.result.object, drawing.lead + tail)
            self.client.rm([former], model=self.model)
        if drawing.point.object and len(drawing.names) > 1:
            self.client.move(name, "", model=self.model)  # the worker was for the drawing only
        return Candidate(name, reply.result.object, drawing.point.at, tail)

    def undrawn(self, drawing: Drawing, index: int) -> None:
        """Remove the name of one that was not drawn."""
        name = drawing.names[index]
        with contextlib.suppress(SsmprovError):  # another error is being reported
            if self.client.show(name, model=self.model).row.object == drawing.point.object:
                self.client.rm([name], model=self.model)

    def undraw(self, drawing: Drawing) -> None:
        """Remove the names of all that were not drawn."""
        for index in range(len(drawing.names)):
            self.undrawn(drawing, index)

    def pick(self, writer: Writer, scene: Scene, candidate: Candidate) -> Change:
        """Continue with a candidate, and remove its name, which is no longer needed."""
        change = self.go(writer, scene, candidate.at, candidate.tail, candidate.object)
        with contextlib.suppress(SsmprovError):  # a name too many does no harm
            if self.client.show(candidate.name, model=self.model).row.object == candidate.object:
                self.client.rm([candidate.name], model=self.model)
                self.file_of(candidate.name).unlink(missing_ok=True)
        return change


def file_of(record: Record, branch: str) -> Path:
    """The file in which the transcript of a branch is kept."""
    quoted = quote(branch, safe="")
    if len(quoted) > _MAX_FILE:
        quoted = f"{quoted[: _MAX_FILE - 20]}-{_digest(branch)}"
    return record.directory / f".transcript.{quoted}.txt"


def highest_closed(transcript: bytes) -> int:
    """The counter for a transcript: the highest number of a closed turn."""
    turns = turns_of(transcript.decode("utf-8", "surrogateescape"))
    return max((turn.number for turn in turns if turn.closed and turn.number < MAX_COUNTER), default=0)


def _roomy(name: str) -> bool:
    return len(name) + _NUMBER <= MAX_NAME and len(quote(name, safe="")) + _NUMBER <= _MAX_FILE


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def holds(path: Path, data: bytes) -> bool:
    """Whether a file contains exactly this."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False
