"""What the shell tools share: which context a turn is for, and how it is sent and recorded as one act."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from clients import probe_view
from shell import old_protocol
from shell.options import assignments, complete_context, connect, json_option, model_option, new_names
from shell.terminal import Output, on_interrupt, run
from ssmprov.commands import LOOKS, PROBE, parse_slash
from ssmprov.errors import BadRequest
from ssmprov.probes import Look
from ssmprov.transcript import half_step
from transcripts.record import MAX_COUNTER, Record
from transcripts.recorded import LIVE, Target, bang_line, bang_target, follow, outgoing, send, take_up

if TYPE_CHECKING:
    from clients.requests import Reply

F = TypeVar("F", bound=Callable[..., object])

MODEL = "SSMPROV_MODEL"


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


def exchange(wish: Wish, text: str, output: Output, *, live: bool, on_cancel: str = "keep") -> Told:
    """Send a text and hear the reply. With `live` a turn that names no context goes on with the live one."""
    if wish.port is not None:
        return _by_port(wish, text, output)
    arguments, also = _asked(wish, live)
    with connect() as client:
        found = run(client, text, arguments, output, on_cancel)
        if also and found.result.name:
            follow(client, arguments, also, notice)
    return _told(found)


def _by_port(wish: Wish, text: str, output: Output) -> Told:
    assert wish.port is not None, "a port was named"
    reply = old_protocol.ask(wish.port, bang_line(wish.bang) + text, wish.connect_timeout, wish.recv_timeout)
    output.write(reply)
    return Told(reply)


def _told(found: Reply) -> Told:
    return Told(found.text, found.result.stop, details={"request": found.id, "result": found.result})


def _asked(wish: Wish, live: bool) -> tuple[dict[str, Any], str]:
    """The arguments of the turn, and the context that is to follow it."""
    target = _target(wish, live)
    arguments = {
        "model": wish.model or usual_model(target.context, target.save),
        "context": target.context,
        "save": target.save,
        "create": wish.create or target.context == LIVE,
        "settings": target.settings,
        "values": assignments(wish.pairs),
        "seed": wish.seed,
        "max_tokens": wish.max_tokens,
        "max_chars": wish.max_chars,
    }
    return arguments, target.also


def notice(text: str) -> None:
    """Tell something on standard error."""
    click.echo(text, err=True)


def usual_model(*names: str) -> str:
    """The model of $SSMPROV_MODEL, for names that do not say theirs."""
    return "" if any(":" in name for name in names) else os.environ.get(MODEL, "")


def _target(wish: Wish, live: bool) -> Target:
    if wish.bang:
        return bang_target(wish.bang)
    if live and not wish.context and not wish.save:
        return Target(LIVE, wish.settings, LIVE)
    return Target(wish.context, wish.settings, wish.save)


def recorded(
    record: Record, wish: Wish, compose: Callable[[int], tuple[str, int]], output: Output, *, on_cancel: str = "close"
) -> Told:
    """One act under the record's lock: mint a number, send, hear, append. A failure mints and appends nothing.

    `compose` makes the text of a number, and says which number the counter stands at then.
    """
    with record.locked(lambda: notice("waiting: another turn of this transcript is under way")) as writer:
        take_up(writer, connect, notice)  # for a port, too: what is appended next would bury the note
        number = writer.next_number()
        text, last = compose(number)
        arguments, also = _asked(wish, live=True) if wish.port is None else ({}, "")
        turn = outgoing(writer, text, number, last, "" if wish.debang else wish.bang, arguments=arguments, also=also)
        if wish.counter is not None:
            turn = replace(turn, counter=wish.counter)
        told: Told | None = None

        def struck() -> None:
            """What a port has begun is given up with its connection; what a context has read is recorded first."""
            if wish.port is not None and told is None:
                raise KeyboardInterrupt

        with on_interrupt(struck, struck, struck):
            if wish.port is not None:
                told = _by_port(wish, turn.prompt, output)
                writer.append(turn.before + told.text, turn.counter)
            else:
                with connect() as client:

                    def ask(prompt: str, request_id: bytes) -> Reply:
                        return run(client, prompt, arguments, output, on_cancel, request_id)

                    told = _told(send(writer, client, turn, ask, notice))
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
        return old_protocol.ask(wish.port, bang_line(wish.bang) + text, wish.connect_timeout, wish.recv_timeout)
    if not command.known:
        raise BadRequest(
            f"a text that begins with / is a command, and there is no {command.word[:60]}: write a space before it"
        )
    if command.word in LOOKS:
        raise BadRequest(
            f"{command.word} is for a port (--port 6502) and the window, which remember it: here `ssmprov probe "
            "--routing HOW --slotmask SLOTS` takes both at once"
        )
    if command.word not in ("/save", "/load", PROBE):
        raise BadRequest(
            f"{command.word} is for a port (--port 6502): here /save NAME and /load NAME keep and take up the live "
            "context, /probe TEXT looks at it, and --settings and --set choose how to sample"
        )
    if wish.bang or wish.context or wish.save:
        raise BadRequest(f"{command.word} is about the live context: leave --load, --save and --bang out")
    if command.word == PROBE:
        with connect() as client:
            seen = client.probe(command.argument, LIVE, model=wish.model or usual_model(), or_empty=True)
        return "\n".join(probe_view.lines(seen, Look())) + "\n"
    name = command.argument or "kv.pkl"
    new_names(name)
    source, target = (LIVE, name) if command.word == "/save" else (name, LIVE)
    with connect() as client:
        client.fork(source, [target], model=wish.model or usual_model(name), overwrite=True)
    return f"[saved -> {name}]\n" if command.word == "/save" else f"[loaded <- {name}]\n"


def here() -> Record:
    """The record of the working directory."""
    return Record(Path.cwd())
