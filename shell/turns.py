"""What the shell tools share: they choose the context of a turn, then send and record the turn as one action."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shell import old_protocol
from shell.options import (
    assignments,
    complete_context,
    complete_set,
    connect,
    json_option,
    model_option,
    new_names,
    usual_model,
)
from shell.terminal import Output, notice, on_interrupt, run
from ssmprov.errors import BadRequest, Conflict, NotFound
from ssmprov.names import split_model
from ssmprov.transcript import half_step
from transcripts.branches import Branches
from transcripts.own import Own, check_served, load, own_of, ready, row_of
from transcripts.record import MAX_COUNTER, Record, Writer
from transcripts.recorded import bang_line, bang_of, outgoing, send, take_up

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRequest:
    """A turn as the options of a tool describe it."""

    model: str = ""
    context: str = ""
    save: str = ""
    overwrite: bool = False
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

    @property
    def with_bang(self) -> TurnRequest:
        """The same, with what a bang line asks for as options. A bang line replaces what it saves over."""
        if not self.bang:
            return self
        bang = bang_of(self.bang)
        return replace(self, context=bang.load, settings=bang.settings, save=bang.save, overwrite=True, bang="")

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments of a turn that say how to sample, and how much."""
        return {
            "settings": self.settings,
            "values": assignments(self.pairs),
            "seed": self.seed,
            "max_tokens": self.max_tokens,
            "max_chars": self.max_chars,
        }

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
            self.overwrite or None,
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
                "--load, --save, --overwrite, --create, --settings, --set, --seed, --max-tokens and --max-chars"
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
            click.option("--overwrite", is_flag=True,
                         help="Let --save replace a context that this turn does not continue."),
            click.option("--create", is_flag=True,
                         help="Start with an empty context if it does not exist yet."),
            click.option("--settings", default="", metavar="SET", shell_complete=complete_set,
                         help="The sampling set (default: the model's)."),
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
    """Send a text and return the reply; record nothing. With `live`, a turn that names no context starts from the
    directory's own, which stays as it is."""
    if request.port is not None:
        return _by_port(request, text, output)
    request = request.with_bang
    own = own_of(here()) if live and not request.context else None
    model = request.model or (own.model if own else usual_model(request.context, request.save))
    with connect() as client:
        context = request.context or (own.name if own and _exists(client, own) else "")
        if request.save and request.save != context:
            _check_save(client, model, context, request)
        arguments = {"model": model, "context": context, "save": request.save, "create": request.create}
        found = run(client, text, arguments | request.sampling, output, on_cancel)
    return _finished(found)


def _exists(client: Client, own: Own) -> bool:
    check_served(client, own)
    return row_of(Branches(here(), client, own.model, own.name)) is not None


def _check_save(client: Client, model: str, context: str, request: TurnRequest) -> None:
    """Raises Conflict if saving would move a name away from something that the turn does not continue."""
    if request.overwrite:
        return
    try:
        there = client.show(request.save, model=model).row
        head = client.show(context, model=there.model).row.object if context else ""
    except NotFound:
        return
    name = split_model(request.save)[1]
    if not head or not Branches(here(), client, there.model, name).leads(there.object, head):
        raise Conflict(
            f"{request.save} already exists, and this turn does not continue it: choose another name, or replace it "
            "with --overwrite"
        )


def tell_if_cut(done: TurnAnswer, request: TurnRequest) -> None:
    """Tell the user that a limit has ended the reply, and how to allow more."""
    if done.stop != "limit":
        return
    tokens = done.details["result"].reply_tokens
    where, remedy = f"{len(done.text)} characters", "allow more with --set max=N, or start a new context if it is full"
    if request.max_tokens is not None and tokens >= request.max_tokens:
        where, remedy = f"{tokens} token{'s' if tokens != 1 else ''}", "allow more with --max-tokens"
    elif request.max_chars is not None:
        remedy = "allow more with --max-chars"
    notice(f"the reply was cut at {where}, so its turn is still open: {remedy}")


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


def recorded(
    record: Record,
    request: TurnRequest,
    compose: Callable[[int], tuple[str, int]],
    output: Output,
    *,
    on_cancel: str = "close",
    own: Own | None = None,
) -> TurnAnswer:
    """Number, send and record a turn while holding the record's lock. A failed turn uses no number and writes nothing.

    `compose` makes the text for a turn number, and returns the value of the counter after it. The turn continues the
    directory's own context, or `own`, whose transcript then follows it.
    """
    with record.locked(lambda: notice("waiting for another turn of this transcript to finish")) as writer:
        take_up(writer, connect, notice)  # for a port, too: otherwise the next turn would cover the note
        with nullcontext() if request.port is not None else connect() as client:
            arguments, also = ({}, "") if client is None else _prepared(writer, record, client, request, own)
            number = writer.next_number()
            text, last = compose(number)
            turn = outgoing(
                writer, text, number, last, "" if request.debang else request.bang, arguments=arguments, also=also
            )
            if request.counter is not None:
                turn = replace(turn, counter=request.counter)
            done: TurnAnswer | None = None

            def interrupted() -> None:
                """A turn through a port is dropped with its connection; what a context has read is recorded first."""
                if client is None and done is None:
                    raise KeyboardInterrupt

            with on_interrupt(interrupted, interrupted, interrupted):
                if client is None:
                    done = _by_port(request, turn.prompt, output)
                    writer.append(turn.before + done.text, turn.counter)
                else:

                    def ask(prompt: str, request_id: bytes) -> Reply:
                        return run(client, prompt, arguments, output, on_cancel, request_id)

                    done = _finished(send(writer, client, turn, ask, notice))
    done.number = number if last >= number else None
    done.reply_number = last if last > number else None
    return done


def _prepared(
    writer: Writer, record: Record, client: Client, request: TurnRequest, own: Own | None
) -> tuple[dict[str, Any], str]:
    """The arguments of a recorded turn, and the name that is moved to its result as well."""
    request = request.with_bang
    mine = own or own_of(record)
    model = request.model or ("" if mine else usual_model(request.context, request.save))
    if request.context and not (mine and mine.meant_by(request.context)):
        mine = load(writer, record, client, request.context, model=model, create=request.create)
    found = ready(writer, record, client, model=model, own=mine, follow=own is not None)
    also = "" if found.own.meant_by(request.save) else request.save
    if also:
        named = replace(request, save=also)
        if (written := split_model(also)[0]) not in ("", found.own.model):
            raise BadRequest(
                f"the context of this directory is {found.own}: it cannot be saved as a context of {written}"
            )
        _check_save(client, found.own.model, f"#{found.head}" if found.head else "", named)
    return {**found.arguments, **request.sampling}, also


def half(record: Record, request: TurnRequest, role: str, content: str) -> TurnAnswer:
    """Send content as a closed turn, which the model only reads, and record it."""
    silent = Output(live=False, bare=False)  # the reply is only the rest of the fence
    return recorded(record, request, lambda number: (half_step(number, role, content), number), silent)


def here() -> Record:
    """The record in the working directory."""
    return Record(Path.cwd())
