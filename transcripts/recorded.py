"""Sends and records a turn as one act, for the shell tools and the window.

A turn is noted before it is sent, and the note is removed once it is recorded. `take_up` finishes what was interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssmprov import wire
from ssmprov.clock import boot, uptime_s
from ssmprov.commands import Bang, parse_bang
from ssmprov.errors import Busy, NotFound, SsmprovError, TimedOut, Unavailable, Unreachable, WorkerLost
from ssmprov.names import check_name, split_model
from transcripts.record import ASKED, MOVING, Asked, Writer

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply

REMEMBERED_S = 3600.0
"""A server remembers the outcome of a turn for at least this long."""

PATIENCE_S = 30.0
"""How long to wait until the server releases a turn whose client was killed."""

UNKNOWN = (Unreachable, TimedOut, WorkerLost)
"""Errors after which a turn may still have been committed."""

Say = Callable[[str], None]
"""Tells the user something that is not an error."""

Ask = Callable[[str, bytes], "Reply"]
"""Sends a prompt under a request id, and returns when the turn has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A turn as it is sent, what is recorded `before` its reply, and the `counter` after it."""

    prompt: str
    before: str
    counter: int | None = None
    also: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


def bang_line(text: str) -> str:
    """A bang line as it is sent, with its line end; '' for none."""
    return (text if text.startswith("!") else f"!{text}") + "\n" if text else ""


def bang_of(text: str) -> Bang:
    """What a bang line asks for. Raises BadRequest."""
    bang = parse_bang(bang_line(text).rstrip("\n"))
    if bang.save:
        check_name(split_model(bang.save)[1])
    return bang


def outgoing(
    writer: Writer, text: str, number: int, last: int, bang: str = "", *, arguments: dict[str, Any], also: str = ""
) -> Outgoing:
    """How to send and record a text whose turns have the numbers `number` to `last`."""
    lead = writer.lead() if text.startswith("(Turn ") else ""
    before = lead + bang_line(bang) + text
    counter = last if last >= number else None
    return Outgoing(prompt=lead + text, before=before, counter=counter, also=also, arguments=arguments)


def send(writer: Writer, client: Client, turn: Outgoing, ask: Ask, say: Say) -> Reply:
    """Note the turn, ask it, record it with its reply. A failed turn records nothing."""
    request_id = wire.new_id()
    if turn.arguments.get("save"):
        client.models()  # fails if there is no broker, before anything is written
        writer.ask(
            Asked(
                id=request_id.hex(),
                at=time.time(),
                prompt=turn.prompt,
                arguments=turn.arguments,
                before=turn.before,
                counter=turn.counter,
                also=turn.also,
                boot=boot(),
                uptime=uptime_s(),
            )
        )
    try:
        reply = ask(turn.prompt, request_id)
    except SsmprovError as error:
        if not isinstance(error, UNKNOWN):
            writer.answered()
        raise
    if turn.also and reply.result.name:
        follow(client, turn.arguments, turn.also, say)
    writer.append(turn.before + reply.text, turn.counter)
    return reply


def follow(client: Client, arguments: dict[str, Any], also: str, say: Say) -> None:
    """Point the context `also` at the turn's result. Only reports errors: the turn still has to be recorded."""
    try:
        client.fork(arguments["save"], [also], model=arguments["model"], overwrite=True)
    except SsmprovError as error:
        say(f"{also} could not be updated to match {arguments['save']}: {error.message}")


def take_up(writer: Writer, connect: Callable[[], Client], say: Say) -> None:
    """Finish what was interrupted: a turn that was sent but not recorded, or a context that was moved without its file.

    A turn is asked for again under its id: a server that has committed it gives the same reply, and reads nothing
    twice. Raises Unreachable if there is something to finish and no broker answers, and the server's other errors.
    """
    if writer.moving() is not None:
        with connect() as client:
            _finish_move(writer, client, say)
    if writer.asked() is not None:
        _finish_turn(writer, connect, say)


def _finish_move(writer: Writer, client: Client, say: Say) -> None:
    move = writer.moving()
    assert move is not None, "there is a note"
    _must_be_served(client, move.model, MOVING)
    try:
        head = client.show(move.name, model=move.model).row.object
    except NotFound:
        head = ""
    if head == move.object and writer.carry_out_move(move):
        say(f"the transcript now matches {move.name}, which was moved; its old text is kept in {move.kept}")
        return
    if head != move.head:
        say(
            f"{move.name} changed again before its transcript could follow: compare with "
            f"`ssmprov ckpt show {move.name} --text`"
        )
    writer.moved()


def _must_be_served(client: Client, model: str, note: str) -> None:
    """If a model is not served now, nothing is known about what became of the context."""
    if model and model not in {card.name for card in client.models()}:
        raise Unavailable(
            f"a turn or a move was interrupted here, and it can only be finished while {model} is served: start that "
            f"model, or give up with `rm {note}`"
        )


def _remembered(asked: Asked) -> bool:
    """Whether a server still knows the outcome. The wall clock is used only if this machine has restarted since."""
    if asked.boot and asked.boot == boot():
        return 0 <= uptime_s() - asked.uptime < REMEMBERED_S
    return 0 <= time.time() - asked.at < REMEMBERED_S


def _finish_turn(writer: Writer, connect: Callable[[], Client], say: Say) -> None:
    asked = writer.asked()
    assert asked is not None, "there is a note"
    name = asked.arguments.get("save", "")
    if not _remembered(asked):
        say(
            f"a turn was interrupted too long ago to be finished: {name} may have read it, but it is not in the "
            f"transcript; compare with `ssmprov ckpt show {name} --text`"
        )
        writer.answered()
        return
    say("recording a turn that was interrupted")
    until = time.monotonic() + PATIENCE_S
    with connect() as client:
        from clients.requests import TurnOptions

        known = {key: value for key, value in asked.arguments.items() if key in TurnOptions.__annotations__}
        _must_be_served(client, split_model(name)[0] or asked.arguments.get("model", ""), ASKED)
        while True:
            try:
                reply = client.turn(asked.prompt, **known | {"request_id": bytes.fromhex(asked.id)})
                break
            except (Unreachable, TimedOut, Unavailable):
                raise
            except Busy:  # until the server notices that the client is gone
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)
            except SsmprovError as error:
                if error.details.get("committed") == "unknown":  # settled when a worker of the model is back
                    raise
                say(f"the interrupted turn had no effect: {error.message}")
                writer.answered()
                return
        if asked.also:
            follow(client, asked.arguments, asked.also, say)
    writer.append(asked.before + reply.text, asked.counter)
