"""`ssmprov pipe` and PIPE: standard input as a turn, the reply on standard output, both in the transcript."""

from __future__ import annotations

import sys
from typing import Any

import click

from shell import turns
from shell.tables import echo_json
from shell.terminal import Output, say
from ssmprov.errors import BadRequest
from ssmprov.formatting import plain
from ssmprov.transcript import check_role, full_step, half_step

PROGRAM = "PIPE"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--in", "role", default="", metavar="ROLE", help="Send the text as a turn of this role.")
@click.option("--out", "reply_role", default="", metavar="ROLE", help="Ask for a turn of this role.")
@click.option("--turn", type=click.IntRange(0), help="The number of the turn sent; nothing is recorded then.")
@click.option(
    "--record/--no-record",
    default=None,
    help="Whether the turn goes into .transcript.txt (PIPE: yes; pipe: where one is).",
)
@turns.turn_options
@click.option("--stream/--no-stream", default=None, help="Write as it comes (the default on a terminal).")
@click.option("--bare", is_flag=True, help="Leave the closing fence out, and end the output with one newline.")
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
    """Send standard input as a turn and write the reply.

    Without --in the text is sent as it is. With --in ROLE it becomes a closed turn, which the context only reads; with
    --out ROLE too, the model writes the next one. One newline at the end of the text is dropped then.

    \b
    echo "Say it." | PIPE --in USER --out INTERFACE
    echo "Say it." | ssmprov pipe --load primed --in USER --out INTERFACE

    In a directory with a transcript (and PIPE anywhere), turn numbers come from .counter, and what was sent and said is
    added to .transcript.txt; without --load and --save the context `live` goes on. A text that begins with / is a
    command: /save NAME, /load NAME and /probe TEXT, and all that a port knows with --port. Ctrl-C closes the turn and
    records what was said so far (while the text is still read, nothing has changed); a second one drops the turn.
    """
    wish = turns.Wish(**options)
    wish.check()
    if reply_role and not role:
        raise click.UsageError("--out needs --in: the role of the text that is sent")
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
        raise click.UsageError("a turn that is recorded takes its number from .counter: leave --turn out, or --record")
    if recording or program or role:
        text = text.removesuffix("\n")
    if recording or program:
        if not text:
            return
        if (answer := turns.slash(wish, text)) is not None:
            say(answer)
            if wish.counter is not None:
                with place.locked() as writer:
                    writer.set_counter(wish.counter)
            return
    if stream is None:
        stream = sys.stdout.isatty()
    output = Output(live=stream and not as_json, bare=bare)
    if recording:
        told = turns.recorded(
            place,
            wish,
            lambda number: (templated(text, number, role, reply_role), number - 1 + bool(role) + bool(reply_role)),
            output,
            on_cancel="close" if reply_role else "keep",
        )
    else:
        prompt = templated(text, 1 if turn is None else turn, role, reply_role)
        told = turns.exchange(wish, prompt, output, live=program)
    if as_json:
        echo_json(_as_json(told))
    else:
        output.end()
    ctx.exit(130 if told.stop == "cancelled" else 0)


def _as_json(told: turns.Told) -> dict[str, Any]:
    numbers = {"turn": told.number, "reply_turn": told.reply_number}
    found: dict[str, Any] = {"text": told.text, **{key: value for key, value in numbers.items() if value is not None}}
    if told.details:
        found |= {"request": told.details["request"], **plain(told.details["result"])}
    return found


def read_text() -> str:
    """Standard input as text. Raises BadRequest for what is no UTF-8."""
    if sys.stdin.isatty():
        click.echo("reading the terminal: Ctrl-D at the start of a line ends the text", err=True)
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"standard input is no UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        ) from None


def templated(text: str, turn: int, role: str, reply_role: str) -> str:
    """The text as it is, or as a closed turn (half step), or with the header of the turn asked for (full step)."""
    if not role:
        return text
    return full_step(turn, role, text, reply_role) if reply_role else half_step(turn, role, text)
