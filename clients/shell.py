"""What the shell tools share: which context a turn is for, and how it is sent and recorded as one act."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clients import port
from clients.asking import Output, on_interrupt, run
from clients.cli_base import assignments, complete_context, connect, json_option, model_option, new_names
from clients.record import MAX_COUNTER, Asked, Record, Writer
from ssmprov import wire
from ssmprov.commands import parse_bang, parse_slash
from ssmprov.errors import BadRequest, Busy, SsmprovError, TimedOut, Unreachable, WorkerLost
from ssmprov.transcript import half_step

if TYPE_CHECKING:
    from clients.blocking import Client

F = TypeVar("F", bound=Callable[..., object])

MODEL = "SSMPROV_MODEL"

REMEMBERED_S = 3600.0
"""A server knows the outcome of a turn at least that long."""

PATIENCE_S = 30.0
"""How long one waits for the server to give a turn free whose client was killed."""

UNKNOWN = (Unreachable, TimedOut, WorkerLost)
"""Errors after which a turn may have been committed all the same."""

LIVE = "live"
"""The context that goes on from turn to turn where none is named, as that of a port does."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the options of a tool say about a turn."""

    model: str = ""
    context: str = ""
    save: str = ""
    create: bool = False
    settings: str = ""
    pairs: tuple[str, ...] = ()
    seed: int | None = None
    max_tokens: int | None = None
    max_chars: int | None = None
    bang: str = ""
    debang: bool = False
    counter: int | None = None
    port: int | None = None
    connect_timeout: float = 3.0
    recv_timeout: float = 600.0

    def check(self) -> None:
        """Raises a usage error for options that do not go together."""
        if self.save:
            new_names(self.save)
        if self.bang and (self.context or self.save or self.settings):
            raise click.UsageError(
                "--bang names context, settings and where to save: leave --load, --settings and --save out"
            )
        mine = (
            self.model,
            self.context,
            self.save,
            self.create or None,
            self.settings,
            self.pairs,
            self.seed,
            self.max_tokens,
            self.max_chars,
        )
        if self.port is not None and any(value not in ("", (), None) for value in mine):
            raise click.UsageError("--port speaks the old protocol, which has only --bang: leave the other options out")


@dataclass(slots=True)
class Told:
    """A finished exchange: the reply, how it ended, and the numbers of its turns."""

    text: str
    stop: str = ""
    number: int | None = None
    reply_number: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


def turn_options(command: F) -> F:
    """The options that say which context a turn is for and how it is sampled."""
    for option in reversed(
        (
            model_option,
            click.option("--load", "--context", "context", default="", metavar="NAME", shell_complete=complete_context,
                         help="Continue this context."),
            click.option("--save", default="", metavar="NAME", shell_complete=complete_context,
                         help="Move NAME to the result."),
            click.option("--create", is_flag=True, help="Start a context that does not exist yet empty."),
            click.option("--settings", default="", metavar="SET", help="The sampling set (else the model's default)."),
            click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One setting, such as temp=0.5."),
            click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The seed of the draws."),
            click.option("--max-tokens", type=click.IntRange(0), help="At most so many tokens; 0 only reads."),
            click.option("--max-chars", type=click.IntRange(0), help="At most so many characters."),
            click.option("--bang", default="", metavar="TEXT", help="A first line !LOAD [SETTINGS [SAVE]], as of old."),
            click.option("--debang", is_flag=True, help="Leave the bang line out of the transcript."),
            click.option("--counter", type=click.IntRange(0, MAX_COUNTER), help="Set .counter to this on success."),
            click.option("--port", type=click.IntRange(1, 65535), help="Send to this port in the old protocol."),
            click.option("--connect-timeout", type=float, default=3.0, hidden=True),
            click.option("--recv-timeout", type=float, default=600.0, hidden=True),
            json_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command


def bang_line(text: str) -> str:
    """A bang line as it is sent, with its line end; '' for none."""
    return (text if text.startswith("!") else f"!{text}") + "\n" if text else ""


Announce = Callable[[bytes, dict[str, Any], str], None]
"""Is told of a turn that saves before it is sent: its id, its arguments, and the context that is to follow."""


def exchange(
    wish: Wish, text: str, output: Output, *, live: bool, on_cancel: str = "keep", announce: Announce | None = None
) -> Told:
    """Send a text and hear the reply. With `live` a turn that names no context goes on with the live one."""
    if wish.port is not None:
        reply = port.ask(wish.port, bang_line(wish.bang) + text, wish.connect_timeout, wish.recv_timeout)
        output.write(reply)
        return Told(reply)
    context, settings, save, also = _target(wish, live)
    model = wish.model or usual_model(context, save)
    arguments = {
        "model": model,
        "context": context,
        "save": save,
        "create": wish.create or context == LIVE,
        "settings": settings,
        "values": assignments(wish.pairs),
        "seed": wish.seed,
        "max_tokens": wish.max_tokens,
        "max_chars": wish.max_chars,
    }
    request_id = wire.new_id()
    with connect() as client:
        if announce is not None and save:
            client.models()  # that a broker is there, before anything is written
            announce(request_id, arguments, also)
        found = run(client, text, arguments, output, on_cancel, request_id)
        if also and found.result.name:
            _follow(client, arguments, also)
    return Told(found.text, found.result.stop, details={"request": found.id, "result": found.result})


def _follow(client: Client, arguments: dict[str, Any], also: str) -> None:
    try:
        client.fork(arguments["save"], [also], model=arguments["model"], overwrite=True)
    except SsmprovError as error:  # the turn itself is done, and is to be recorded
        click.echo(f"{also} is not what {arguments['save']} is now: {error.message}", err=True)


def _finish(writer: Writer) -> None:
    """Record the turn that was sent by one who was killed before its reply was recorded.

    It is asked for again under its id: a server that has committed it gives the same reply, and reads nothing twice.
    """
    asked = writer.asked()
    if asked is None:
        return
    name = asked.arguments.get("save", "")
    if not 0 <= time.time() - asked.at < REMEMBERED_S:
        click.echo(
            f"a turn was broken off too long ago to be taken up: {name} may have read it, and the transcript does not "
            f"hold it; compare with `ssmprov ckpt show {name} --text`",
            err=True,
        )
        writer.answered()
        return
    click.echo("recording a turn that was broken off", err=True)
    until = time.monotonic() + PATIENCE_S
    with connect() as client:
        while True:
            try:
                reply = client.turn(asked.prompt, request_id=bytes.fromhex(asked.id), **asked.arguments)
                break
            except Unreachable:
                raise
            except Busy:  # until the server notices that the one who asked is gone
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            except SsmprovError as error:
                click.echo(f"it had no effect: {error.message}", err=True)
                writer.answered()
                return
        if asked.also:
            _follow(client, asked.arguments, asked.also)
    writer.append(asked.before + reply.text, asked.counter)


def usual_model(*names: str) -> str:
    """The model of $SSMPROV_MODEL, for names that do not say theirs."""
    return "" if any(":" in name for name in names) else os.environ.get(MODEL, "")


def _target(wish: Wish, live: bool) -> tuple[str, str, str, str]:
    """Context, settings, where to save, and where else: a bang line leaves its outcome in the live context, too."""
    if wish.bang:
        bang = parse_bang(bang_line(wish.bang).rstrip("\n"))
        save = bang.save or LIVE
        new_names(save)
        return bang.load or LIVE, bang.settings, save, LIVE if save != LIVE else ""
    if live and not wish.context and not wish.save:
        return LIVE, wish.settings, LIVE, ""
    return wish.context, wish.settings, wish.save, ""


def recorded(
    record: Record, wish: Wish, compose: Callable[[int], tuple[str, int]], output: Output, *, on_cancel: str = "close"
) -> Told:
    """One act under the record's lock: mint a number, send, hear, append. A failure mints and appends nothing.

    `compose` makes the text of a number, and says which number the counter stands at then.
    """
    with record.locked(lambda: click.echo("waiting: another turn of this transcript is under way", err=True)) as writer:
        _finish(writer)  # for a port, too: what is appended next would bury the note
        number = writer.next_number()
        text, last = compose(number)
        lead = writer.lead() if text.startswith("(Turn ") else ""
        told: Told | None = None

        def struck() -> None:
            """What a port has begun is given up with its connection; what a context has read is recorded first."""
            if wish.port is not None and told is None:
                raise KeyboardInterrupt

        shown = "" if wish.debang else bang_line(wish.bang)
        before = lead + shown + text
        counter = wish.counter if wish.counter is not None else (last if last >= number else None)

        def announce(request: bytes, arguments: dict[str, Any], also: str) -> None:
            writer.ask(Asked(request.hex(), time.time(), lead + text, arguments, before, counter, also))

        with on_interrupt(struck, struck, struck):
            try:
                told = exchange(wish, lead + text, output, live=True, on_cancel=on_cancel, announce=announce)
            except SsmprovError as error:
                if not isinstance(error, UNKNOWN):
                    writer.answered()
                raise
            writer.append(before + told.text, counter)
    told.number = number if last >= number else None
    told.reply_number = last if last > number else None
    return told


def half(record: Record, wish: Wish, role: str, content: str) -> Told:
    """Send a content as a closed turn, which the model only reads, and record it."""
    silent = Output(live=False, bare=False)  # the reply is only the rest of the fence
    return recorded(record, wish, lambda number: (half_step(number, role, content), number), silent)


def check_served(wish: Wish) -> None:
    """For what cannot be undone before the turn is sent. Raises Unreachable where no broker answers."""
    if wish.port is None:
        with connect() as client:
            client.models()


def slash(wish: Wish, text: str) -> str | None:
    """What a slash command answers; None for a text that is none."""
    command = parse_slash(text)
    if command is None or not text.startswith("/"):
        return None
    if wish.port is not None:
        return port.ask(wish.port, bang_line(wish.bang) + text, wish.connect_timeout, wish.recv_timeout)
    if not command.known:
        raise BadRequest(
            f"a text that begins with / is a command, and there is no {command.word[:60]}: write a space before it"
        )
    if command.word not in ("/save", "/load"):
        raise BadRequest(
            f"{command.word} is for a port (--port 6502): here /save NAME and /load NAME keep and take up the live "
            "context, and --settings and --set choose how to sample"
        )
    if wish.bang or wish.context or wish.save:
        raise BadRequest(f"{command.word} is about the live context: leave --load, --save and --bang out")
    name = command.argument or "kv.pkl"
    new_names(name)
    source, target = (LIVE, name) if command.word == "/save" else (name, LIVE)
    with connect() as client:
        client.fork(source, [target], model=wish.model or usual_model(name), overwrite=True)
    return f"[saved -> {name}]\n" if command.word == "/save" else f"[loaded <- {name}]\n"


def here() -> Record:
    """The record of the working directory."""
    return Record(Path.cwd())
