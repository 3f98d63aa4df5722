"""A directory's own context: the one that has read the directory's transcript, byte for byte.

The dot file `.context` names it (MODEL:NAME). It is made at the first recorded turn, and the shell tools and the
Composer share it. Before each recorded turn the whole transcript is compared with all that the context has read. If
they differ, nothing is sent, and the error says what can be done.
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ssmprov import durable
from ssmprov.encoding import without_bom
from ssmprov.errors import BadRequest, Conflict, NotFound, Unavailable
from ssmprov.names import check_model, check_name, split_model
from ssmprov.ops import Row
from ssmprov.textdigest import text_digest
from transcripts.alignment import Point, Route, common
from transcripts.branches import Branches, Change, file_of, highest_closed, holds
from transcripts.record import CONTEXT, Moving, Record, Writer, digest_of

if TYPE_CHECKING:
    from clients.blocking import Client

FORMER = "live"
"""The context that all directories of a model shared before each had its own."""

_LETTERS = 6
_MAX_STEM = 80
_MAX_BYTES = 300
_MOST_KEPT = 10_000


class Own(NamedTuple):
    """A directory's context, as its dot file names it."""

    model: str
    name: str

    def __str__(self) -> str:
        return f"{self.model}:{self.name}"

    def meant_by(self, reference: str) -> bool:
        """Whether a reference means this context."""
        return reference in (self.name, str(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A directory's context that agrees with its transcript. `head` is '' if it has read nothing yet."""

    own: Own
    head: str

    @property
    def arguments(self) -> dict[str, object]:
        """The arguments of a turn that continues it, unless something else has changed it meanwhile."""
        return {
            "model": self.own.model,
            "context": self.own.name,
            "save": self.own.name,
            "create": not self.head,
            "if_head": self.head or "none",
        }


def own_of(record: Record, *, damaged_is_none: bool = False) -> Own | None:
    """The directory's context; None if it has none yet. Raises BadRequest if the dot file does not name one."""
    path = record.directory / CONTEXT
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return None
    model, name = split_model(text)
    try:
        return Own(check_model(model), check_name(name))
    except BadRequest:
        if damaged_is_none or not text:  # code in the sandbox sees an empty file
            return None
        raise BadRequest(
            f"{path} does not name a context: write MODEL:NAME into it, or remove it and start a new transcript with "
            "`ssmprov transcript new`"
        ) from None


def fresh_name(record: Record) -> str:
    """A name for a directory's context: the directory's name and six random letters."""
    stem = re.sub(r"[^A-Za-z0-9_]+", "-", record.directory.resolve().name).strip("-")[:_MAX_STEM] or "here"
    return f"{stem}-{''.join(secrets.choice(string.ascii_lowercase) for _ in range(_LETTERS))}"


def claim(writer: Writer, record: Record, own: Own) -> None:
    """Make a context the directory's own."""
    if own_of(record) != own:
        writer.set_context(str(own))


# -- before a turn


def ready(
    writer: Writer, record: Record, client: Client, *, model: str = "", own: Own | None = None, follow: bool = False
) -> Ready:
    """The directory's context, once it is known to agree with the transcript. It is made if there is none yet.

    `model` is for a new context; `own` for a directory whose context is chosen elsewhere. With `follow`, a transcript
    that differs becomes what the context has read. Otherwise raises Conflict if they differ, BadRequest if the
    directory's context belongs to another model, and Unavailable if its model is not served.
    """
    own = own or own_of(record) or first(record, client, model)
    check_served(client, own)
    if model and model != own.model:
        raise BadRequest(
            f"the context of this directory is {own}, so {model} cannot continue it: leave out --model, or start a new "
            f"transcript with `ssmprov transcript new --model {model}`"
        )
    branches = Branches(record, client, own.model, own.name)
    row = row_of(branches)
    data = record.read()
    if not agrees(branches, data, row):
        if not follow:
            raise differ(branches, data, row)
        restore(writer, record, client, own)
    claim(writer, record, own)
    return Ready(own=own, head=row.object if row else "")


def check_served(client: Client, own: Own) -> None:
    """Raises Unavailable if the model of a directory's context is not served: nothing is known about the context."""
    if own.model not in (names := [card.name for card in client.models()]):
        raise Unavailable(
            f"the context of this directory is {own}, but {own.model} is not served now (only {', '.join(names)}): "
            "start that model, or start a new transcript with `ssmprov transcript new`"
        )


def row_of(branches: Branches) -> Row | None:
    """The context's row, or None if it has read nothing yet."""
    try:
        return branches.client.show(branches.name, model=branches.model).row
    except NotFound:
        return None


def agrees(branches: Branches, data: bytes, row: Row | None) -> bool:
    """Whether the context has read exactly the transcript `data`, apart from recorded bang lines."""
    if row is None:
        return not without_bom(data)
    if len(data) == row.text_bytes and text_digest(data).data.hex() == row.text_digest:
        return True
    text = without_bom(data)
    if len(text) <= row.text_bytes:
        return len(text) == row.text_bytes and text_digest(text).data.hex() == row.text_digest
    point = meeting(branches, data, row)
    return (point.at, point.object) == (len(data), row.object)


def meeting(branches: Branches, data: bytes, row: Row | None) -> Point:
    """The last place up to which the transcript and one of the context's steps agree.

    If the context has read more than the transcript, this is not the end of the context.
    """
    if row is None:
        return Point(0, "")
    steps, text = branches.lineage(row.object), branches.text(row.object)
    points = common(data, steps, text)
    return points[-1] if points else Point(0, "")


def differ(branches: Branches, data: bytes, row: Row | None) -> Conflict:
    """The error for a transcript that is not what its context has read, with what can be done."""
    own = Own(branches.model, branches.name)
    return difference(own, data, meeting(branches, data, row), row.text_bytes if row else None)


def difference(own: Own, data: bytes, point: Point, read_bytes: int | None) -> Conflict:
    """The same, from the `point` up to which both agree and the bytes that the context has read (None: it is empty)."""
    choices = {
        "reread": "the context reads the transcript anew",
        "back": "both go back to where they agree",
        "restore": "the transcript becomes what the context has read",
        "new": "starts a new transcript",
    }
    if not data:
        what = f"the transcript is empty, but the context of this directory ({own}) has read {read_bytes} bytes"
        del choices["reread"], choices["back"]
    elif read_bytes is None:
        what = f"the context of this directory ({own}) has not read the transcript"
        del choices["back"], choices["restore"]
    else:
        line = data[: point.at].count(b"\n") + 1
        what = f"the transcript and the context of this directory ({own}) differ from line {line} on"
        if point.at == 0:
            del choices["back"]
    offered = "; ".join(f"`ssmprov transcript {word}`: {does}" for word, does in choices.items())
    return Conflict(
        f"nothing was sent: {what}. Choose one ({offered}). What you leave is kept",
        fault=what,
        own=str(own),
        agree_bytes=point.at,
        choices=list(choices),
    )


def first(record: Record, client: Client, model: str) -> Own:
    """The context of a directory that has none yet: a new one, or a copy of what it shared before if that agrees."""
    names = [model] if model else [card.name for card in client.models()]
    own = Own(model or client.default_model(), fresh_name(record))
    if (found := used_before(record, client, names)) is not None:
        own = Own(found[0].model, own.name)
        client.fork(f"#{found[1]}", [own.name], model=own.model)
    return own


def used_before(record: Record, client: Client, models: list[str], *names: str) -> tuple[Own, str] | None:
    """The context that has read the transcript of a directory without a dot file, and its checkpoint.

    It has one of these names, or the one that all directories shared.
    """
    data = record.read()
    for model in models if data else ():
        for name in filter(None, (*names, FORMER)):
            branches = Branches(record, client, model, name)
            row = row_of(branches)
            if row is not None and agrees(branches, data, row):
                return Own(model, name), row.object
    return None


# -- going elsewhere


def go_to(writer: Writer, branches: Branches, object_id: str) -> Change:
    """Continue from any checkpoint of the context's model, with the transcript of that checkpoint.

    The old transcript is kept beside it. The context becomes the directory's own.
    """
    scene = branches.scene()
    way = branches.route(scene, object_id) if scene.agrees else Route(0, branches.text(object_id))
    tail = way.tail
    if way.at == 0 and tail and (kept := branches.kept_transcript(object_id)) is not None:
        tail = kept
    return branches.go(writer, scene, way.at, tail, object_id)


def load(writer: Writer, record: Record, client: Client, ref: str, *, model: str = "", create: bool = False) -> Own:
    """Continue with a copy of another context, and take its transcript along.

    Raises NotFound if it does not exist. With `create`, a new transcript is started then.
    """
    mine = own_of(record)
    model = model or split_model(ref)[0] or (mine.model if mine else "")
    try:
        row = client.show(ref, model=model).row
    except NotFound:
        if not create:
            raise
        return start_new(writer, record, model or client.default_model())[0]
    if mine is None or mine.model != row.model:
        mine = Own(row.model, fresh_name(record))
    branches = Branches(record, client, mine.model, mine.name)
    go_to(writer, branches, row.object)
    claim(writer, record, mine)
    return mine


def save(client: Client, found: Ready, name: str) -> None:
    """Give the directory's context another name, even if that is taken. Saves an empty context if it is empty."""
    if found.head:
        client.fork(f"#{found.head}", [name], model=found.own.model, overwrite=True)
    else:
        client.turn("", model=found.own.model, save=name, max_tokens=0)


def start_new(writer: Writer, record: Record, model: str) -> tuple[Own, str]:
    """Start a new transcript with a new context. The old transcript is kept under the name of its context.

    Returns the context, and the file of the old transcript ('' if it was empty).
    """
    own = Own(model, fresh_name(record))
    return own, replace_transcript(writer, record, own, b"", "")


def restore(writer: Writer, record: Record, client: Client, own: Own) -> str:
    """Write the transcript again from what the context has read. Returns the file in which the old one is kept."""
    branches = Branches(record, client, own.model, own.name)
    head = branches.head()
    text = (branches.kept_transcript(head) or branches.text(head)) if head else b""
    return replace_transcript(writer, record, own, text, head)


def _keep(record: Record, own: Own, data: bytes) -> str:
    """Keep a transcript in a file beside it that is named after its context, or has a number if that is taken."""
    name = (own_of(record, damaged_is_none=True) or own).name
    for number in range(_MOST_KEPT):
        path = file_of(record, f"{name}.{number}" if number else name)
        if holds(path, data):
            return path.name
        if not path.exists():
            durable.replace(path, data)
            return path.name
    raise Conflict(f"{_MOST_KEPT} old transcripts of {name} are kept here: move some of them away")


def replace_transcript(writer: Writer, record: Record, own: Own, text: bytes, head: str) -> str:
    """Make `text` the transcript and `own`, which is at `head`, the directory's context.

    Returns the file in which the old transcript is kept, '' if it was empty.
    """
    data = record.read()
    kept = _keep(record, own, data) if data and data != text else ""
    move = Moving(
        model=own.model,
        name=own.name,
        head=head,
        object=head,
        at=0,
        tail=text.decode("utf-8", "surrogateescape"),
        sha256=digest_of(data),
        counter=highest_closed(text),
        kept=kept,
        context=str(own),
    )
    writer.move(move)
    if not writer.carry_out_move(move):
        raise Conflict("the transcript was changed by another program, so it was left as it is: try again")
    return kept
