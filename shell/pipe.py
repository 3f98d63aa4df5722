"""`ssmprov pipe` and PIPE: send standard input as a turn, print the reply, and record both in the transcript."""

from __future__ import annotations

import sys
from typing import Any

import click

from shell import turns
from shell.slash import slash, with_chosen
from shell.tables import echo_json
from shell.terminal import Output, say
from ssmprov import encoding
from ssmprov.errors import BadRequest
from ssmprov.formatting import plain
from ssmprov.transcript import check_role, full_step, half_step

PROGRAM = "PIPE"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--in", "role", default="", metavar="ROLE", help="Send the text as a turn of this role.")
@click.option("--out", "reply_role", default="", metavar="ROLE", help="Ask for a turn of this role.")
@click.option("--turn", type=click.IntRange(0), help="Send the turn with this number, and record nothing.")
@click.option(
    "--record/--no-record",
    default=None,
    help="Whether to record the turn in .transcript.txt (PIPE: always; pipe: if the file exists).",
)
@turns.turn_options
@click.option("--stream/--no-stream", default=None, help="Print the reply as it arrives (the default on a terminal).")
@click.option("--bare", is_flag=True, help="Print the reply without its closing fence, followed by a newline.")
@click.pass_context
def pipe(
    ctx: click.Context,
    /,
    role: str,
    reply_role: str,
    turn: int | None,
    record: bool | None,
    stream: bool | None,
    bare: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Send standard input as a turn and print the reply.

    Without --in, the text is sent unchanged. With --in ROLE, it becomes a closed turn that the context only reads. If
    you add --out ROLE, the model writes the next turn. Both drop one newline at the end of the text.

    \b
    echo "Say it." | PIPE --in USER --out INTERFACE
    echo "Say it." | ssmprov pipe --load primed --in USER --out INTERFACE

    In a directory with a transcript (PIPE: in any directory), turn numbers come from .counter, and both turns are added
    to .transcript.txt. The turn continues the context of the directory. A text that begins with / is a command; /?
    lists all commands. Ctrl-C ends the reply and records what has been written so far. If the prompt is still being
    read, nothing changes. A second Ctrl-C drops the turn.
    """
    request = turns.TurnRequest(**options)
    request.check()
    if reply_role and not role:
        raise click.UsageError("--out needs --in, the role of the text that you send")
    try:
        for word in filter(None, (role, reply_role)):
            check_role(word)
    except BadRequest as error:
        raise click.UsageError(error.message) from None
    text = read_text()
    place = turns.here()
    program = ctx.info_name == PROGRAM
    recording = record if record is not None else turn is None and (program or place.exists)
    if recording and turn is not None:
        raise click.UsageError("a recorded turn takes its number from .counter: leave out either --turn or --record")
    if recording or program or role:
        text = without_newline(text)
    if recording or program:
        if not text:
            return
        if (answer := slash(place, request, text)) is not None:
            say(answer)
            if request.counter is not None:
                with place.locked() as writer:
                    writer.set_counter(request.counter)
            return
        request = with_chosen(place, request)
    if stream is None:
        stream = sys.stdout.isatty()
    output = Output(live=stream and not as_json, bare=bare)
    if recording:
        done = turns.recorded(
            place,
            request,
            lambda number: (templated(text, number, role, reply_role), number - 1 + bool(role) + bool(reply_role)),
            output,
            on_cancel="close" if reply_role else "keep",
        )
    else:
        prompt = templated(text, 1 if turn is None else turn, role, reply_role)
        done = turns.exchange(request, prompt, output, live=program)
    if as_json:
        echo_json(_as_json(done))
    else:
        output.end()
        turns.tell_if_cut(done, request)
    ctx.exit(130 if done.stop == "cancelled" else 0)


def _as_json(done: turns.TurnAnswer) -> dict[str, Any]:
    numbers = {"turn": done.number, "reply_turn": done.reply_number}
    found: dict[str, Any] = {"text": done.text, **{key: value for key, value in numbers.items() if value is not None}}
    if done.details:
        found |= {"request": done.details["request"], **plain(done.details["result"])}
    return found


def read_text() -> str:
    """Standard input as text, without a byte-order mark. Raises BadRequest if it is not UTF-8."""
    if sys.stdin.isatty():
        click.echo("reading from the terminal: end the text with Ctrl-D at the start of a line", err=True)
    return encoding.text_of(sys.stdin.buffer.read(), "standard input")


def without_newline(text: str) -> str:
    """The text without one newline at its end, LF or CRLF."""
    return text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")


def templated(text: str, turn: int, role: str, reply_role: str) -> str:
    """The text unchanged, as a closed turn (half step), or with the header of the reply as well (full step)."""
    if not role:
        return text
    return full_step(turn, role, text, reply_role) if reply_role else half_step(turn, role, text)
