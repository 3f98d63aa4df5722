"""What the shell tools share: they choose the context of a turn, then send and record the turn as one action."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """A turn as the options of a tool describe it."""

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
        """Raises a usage error if options contradict each other."""
        if self.save:
            new_names(self.save)
        if self.bang and (self.context or self.save or self.settings):
            raise click.UsageError(
                "--bang already names the context, the settings and where to save: leave out --load, --settings and "
                "--save"
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
            raise click.UsageError(
                "--port uses the old protocol, which takes context and settings only from --bang: leave out --model, "
                "--load, --save, --create, --settings, --set, --seed, --max-tokens and --max-chars"
            )


@dataclass(slots=True, kw_only=True)
class TurnAnswer:
    """A finished exchange: the reply, how it ended, and the numbers of its turns."""

    text: str
    stop: str = ""
    number: int | None = None
    reply_number: int | None = None
    details: dict[str, Any] = field(default_factory=dict)


def turn_options(command: F) -> F:
    """The options that choose the context of a turn and its sampling."""
    for option in reversed(
        (
            model_option,
            click.option("--load", "--context", "context", default="", metavar="NAME", shell_complete=complete_context,
                         help="Continue this context."),
            click.option("--save", default="", metavar="NAME", shell_complete=complete_context,
                         help="Save the result under NAME."),
            click.option("--create", is_flag=True,
                         help="Start with an empty context if it does not exist yet."),
            click.option("--settings", default="", metavar="SET", help="The sampling set (default: the model's)."),
            click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One setting, such as temp=0.5."),
            click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The random seed."),
            click.option("--max-tokens", type=click.IntRange(0),
                         help="Generate at most this many tokens; 0 only reads the text."),
            click.option("--max-chars", type=click.IntRange(0), help="Generate at most this many characters."),
            click.option("--bang", default="", metavar="TEXT",
                         help="Begin with the bang line !LOAD [SETTINGS [SAVE]], as in the old protocol."),
            click.option("--debang", is_flag=True, help="Do not record the bang line in the transcript."),
            click.option("--counter", type=click.IntRange(0, MAX_COUNTER),
                         help="Set .counter to this number if the turn succeeds."),
            click.option("--port", type=click.IntRange(1, 65535),
                         help="Send the turn to this port with the old protocol."),
            click.option("--connect-timeout", type=float, default=3.0, hidden=True),
            click.option("--recv-timeout", type=float, default=600.0, hidden=True),
            json_option,
        )
    ):  # fmt: skip
        command = option(command)
    return command


def exchange(request: TurnRequest, text: str, output: Output, *, live: bool, on_cancel: str = "keep") -> TurnAnswer:
    """Send a text and return the reply. With `live`, a turn that names no context continues the live one."""
    if request.port is not None:
        return _by_port(request, text, output)
    arguments, also = _arguments(request, live)
    with connect() as client:
        found = run(client, text, arguments, output, on_cancel)
        if also and found.result.name:
            follow(client, arguments, also, notice)
    return _finished(found)


def _ask_port(request: TurnRequest, text: str) -> str:
    assert request.port is not None, "a port was named"
    text = bang_line(request.bang) + text
    return old_protocol.ask(request.port, text, request.connect_timeout, request.recv_timeout)


def _by_port(request: TurnRequest, text: str, output: Output) -> TurnAnswer:
    reply = _ask_port(request, text)
    output.write(reply)
    return TurnAnswer(text=reply)


def _finished(found: Reply) -> TurnAnswer:
    return TurnAnswer(text=found.text, stop=found.result.stop, details={"request": found.id, "result": found.result})


def _arguments(request: TurnRequest, live: bool) -> tuple[dict[str, Any], str]:
    """The arguments of the turn, and the context that is moved to its result as well."""
    target = _target(request, live)
    arguments = {
        "model": request.model or usual_model(target.context, target.save),
        "context": target.context,
        "save": target.save,
        "create": request.create or target.context == LIVE,
        "settings": target.settings,
        "values": assignments(request.pairs),
        "seed": request.seed,
        "max_tokens": request.max_tokens,
        "max_chars": request.max_chars,
    }
    return arguments, target.also


def notice(text: str) -> None:
    """Print a notice on standard error."""
    click.echo(text, err=True)


def usual_model(*names: str) -> str:
    """The model in $SSMPROV_MODEL, if no name says which model it belongs to."""
    return "" if any(":" in name for name in names) else os.environ.get(MODEL, "")


def _target(request: TurnRequest, live: bool) -> Target:
    if request.bang:
        return bang_target(request.bang)
    if live and not request.context and not request.save:
        return Target(LIVE, request.settings, LIVE)
    return Target(request.context, request.settings, request.save)


def recorded(
    record: Record,
    request: TurnRequest,
    compose: Callable[[int], tuple[str, int]],
    output: Output,
    *,
    on_cancel: str = "close",
) -> TurnAnswer:
    """Number, send and record a turn while holding the record's lock. A failed turn uses no number and writes nothing.

    `compose` makes the text for a turn number, and returns the value of the counter after it.
    """
    with record.locked(lambda: notice("waiting for another turn of this transcript to finish")) as writer:
        take_up(writer, connect, notice)  # for a port, too: otherwise the next turn would cover the note
        number = writer.next_number()
        text, last = compose(number)
        arguments, also = _arguments(request, live=True) if request.port is None else ({}, "")
        turn = outgoing(
            writer, text, number, last, "" if request.debang else request.bang, arguments=arguments, also=also
        )
        if request.counter is not None:
            turn = replace(turn, counter=request.counter)
        done: TurnAnswer | None = None

        def interrupted() -> None:
            """A turn through a port is dropped with its connection; what a context has read is recorded first."""
            if request.port is not None and done is None:
                raise KeyboardInterrupt

        with on_interrupt(interrupted, interrupted, interrupted):
            if request.port is not None:
                done = _by_port(request, turn.prompt, output)
                writer.append(turn.before + done.text, turn.counter)
            else:
                with connect() as client:

                    def ask(prompt: str, request_id: bytes) -> Reply:
                        return run(client, prompt, arguments, output, on_cancel, request_id)

                    done = _finished(send(writer, client, turn, ask, notice))
    done.number = number if last >= number else None
    done.reply_number = last if last > number else None
    return done


def half(record: Record, request: TurnRequest, role: str, content: str) -> TurnAnswer:
    """Send content as a closed turn, which the model only reads, and record it."""
    silent = Output(live=False, bare=False)  # the reply is only the rest of the fence
    return recorded(record, request, lambda number: (half_step(number, role, content), number), silent)


def check_served(request: TurnRequest) -> None:
    """Check that a broker answers, before something that cannot be undone. Raises Unreachable."""
    if request.port is None:
        with connect() as client:
            client.models()


def slash(request: TurnRequest, text: str) -> str | None:
    """The answer to a slash command, or None if the text is not one."""
    command = parse_slash(text)
    if command is None or not text.startswith("/"):
        return None
    if request.port is not None:
        return old_protocol.ask(
            request.port, bang_line(request.bang) + text, request.connect_timeout, request.recv_timeout
        )
    if not command.known:
        raise BadRequest(
            f"a text that begins with / is a command, and {command.word[:60]} does not exist: to send it as text, "
            "put a space before it"
        )
    if command.word in LOOKS:
        raise BadRequest(
            f"{command.word} works only with a port (--port 6502) and in the Composer, which remember it: use "
            "`ssmprov probe --routing HOW --slotmask SLOTS` instead"
        )
    if command.word not in ("/save", "/load", PROBE):
        raise BadRequest(
            f"{command.word} works only with a port (--port 6502): here, set the sampling with --settings and --set. "
            "The commands /save NAME, /load NAME and /probe TEXT work here, with the live context"
        )
    if request.bang or request.context or request.save:
        raise BadRequest(f"{command.word} works with the live context: leave out --load, --save and --bang")
    if command.word == PROBE:
        with connect() as client:
            seen = client.probe(command.argument, LIVE, model=request.model or usual_model(), or_empty=True)
        return "\n".join(probe_view.lines(seen, Look())) + "\n"
    name = command.argument or "kv.pkl"
    new_names(name)
    source, target = (LIVE, name) if command.word == "/save" else (name, LIVE)
    with connect() as client:
        client.fork(source, [target], model=request.model or usual_model(name), overwrite=True)
    return f"[saved -> {name}]\n" if command.word == "/save" else f"[loaded <- {name}]\n"


def here() -> Record:
    """The record in the working directory."""
    return Record(Path.cwd())
