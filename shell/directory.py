"""`ssmprov transcript`: shows how a directory's transcript and its context stand, and brings them together again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from shell import turns
from shell.options import connect, json_option, model_option, usual_model
from shell.tables import echo_json
from shell.terminal import Output, notice, run
from shell.transcript import check
from ssmprov.errors import BadRequest, NotFound
from ssmprov.terminal import printable
from transcripts import own as own_context
from transcripts.branches import Branches
from transcripts.own import Own
from transcripts.record import CONTEXT, Record, Writer
from transcripts.recorded import take_up

if TYPE_CHECKING:
    from clients.blocking import Client


@click.group("transcript", invoke_without_command=True)
@click.pass_context
def transcript(ctx: click.Context) -> None:
    """Compare the transcript of this directory with its context, and bring them together again.

    Before each recorded turn the two are compared. If they differ, for example because you edited the file, nothing
    is sent until you choose one of `reread`, `back`, `restore` and `new`. Whatever you leave behind is kept: the old
    transcript in a file beside the new one, the old context under a name of its own.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(status)


transcript.add_command(check, "check")


@dataclass(frozen=True, slots=True)
class Place:
    """The directory's transcript and context while the lock is held."""

    writer: Writer
    record: Record
    client: Client
    own: Own

    @property
    def branches(self) -> Branches:
        return Branches(self.record, self.client, self.own.model, self.own.name)


@contextmanager
def place() -> Iterator[Place]:
    """Raises NotFound if the directory has no context yet."""
    record = turns.here()
    with record.locked(lambda: notice("waiting for another turn of this transcript to finish")) as writer:
        take_up(writer, connect, notice)
        with connect() as client:
            own = own_context.own_of(record)
            if own is None and record.read():
                own = own_context.first(record, client, usual_model())
            if own is None:
                raise NotFound(f"this directory has no transcript yet, so there is no {CONTEXT}: PIPE starts both")
            own_context.check_served(client, own)
            yield Place(writer, record, client, own)


@transcript.command()
@json_option
def status(as_json: bool) -> None:
    """Say which context belongs to this directory, and whether the two agree. The exit code is 1 if they don't."""
    with place() as here:
        data, row = here.record.read(), own_context.row_of(here.branches)
        agree = own_context.agrees(here.branches, data, row)
        point = own_context.meeting(here.branches, data, row)
    if as_json:
        echo_json(
            {
                "context": str(here.own),
                "tokens": row.tokens if row else 0,
                "transcript_bytes": len(data),
                "context_bytes": row.text_bytes if row else 0,
                "agree": agree,
                "agree_bytes": point.at,
            }
        )
    else:
        read = f"{row.tokens} tokens, {row.text_bytes} bytes of text" if row else "nothing yet"
        click.echo(f"context     {printable(str(here.own))}")
        click.echo(f"has read    {read}")
        click.echo(f"transcript  {len(data)} bytes")
        line = data[: point.at].count(b"\n") + 1
        click.echo(f"agree       {'yes' if agree else f'no: they differ from line {line} on'}")
    click.get_current_context().exit(0 if agree else 1)


@transcript.command()
def reread() -> None:
    """Let an empty context read the whole transcript. It becomes the context of this directory."""
    with place() as here:
        branches, scene = here.branches, here.branches.scene()
        if not scene.transcript:
            raise BadRequest("the transcript is empty: there is nothing to read")
        drawing = branches.reread(scene)
        try:
            reply = run(
                here.client,
                drawing.prompt,
                branches.arguments(drawing, 0, max_tokens=0),
                Output(live=False, bare=False),
                "drop",
            )
        except BaseException:
            branches.undraw(drawing)
            raise
        branches.pick(here.writer, scene, branches.drawn(drawing, 0, reply))
        own_context.claim(here.writer, here.record, here.own)
    notice(f"{here.own} has read the transcript: {reply.result.tokens} tokens")


@transcript.command()
def back() -> None:
    """Go back to the last turn at which the transcript and the context agree."""
    with place() as here:
        branches, scene = here.branches, here.branches.scene()
        row = own_context.row_of(branches)
        point = own_context.meeting(branches, scene.transcript, row)
        branches.go(here.writer, scene, point.at, b"", point.object)
        own_context.claim(here.writer, here.record, here.own)
    notice(f"the transcript and {here.own} now end after {point.at} bytes")


@transcript.command()
def restore() -> None:
    """Write the transcript again from what the context has read."""
    with place() as here:
        kept = own_context.restore(here.writer, here.record, here.client, here.own)
    notice(f"the transcript is now what {here.own} has read{_kept(kept)}")


@transcript.command()
@model_option
def new(model: str) -> None:
    """Start a new transcript with a new, empty context."""
    record = turns.here()
    with record.locked(lambda: notice("waiting for another turn of this transcript to finish")) as writer:
        take_up(writer, connect, notice)
        with connect() as client:
            former = own_context.own_of(record, damaged_is_none=True)
            names = [card.name for card in client.models()]
            served = former.model if former and former.model in names else ""
            chosen = model or served or usual_model() or client.default_model()
            if chosen not in names:
                raise NotFound(f"the model {chosen!r} is not served: choose one of {', '.join(names)}")
            own, kept = own_context.start_new(writer, record, chosen)
    notice(f"the transcript is empty now, and its context is {own}{_kept(kept)}")


def _kept(file: str) -> str:
    return f"; the old one is kept in {file}" if file else ""
