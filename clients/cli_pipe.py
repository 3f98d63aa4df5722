"""`ssmprov pipe`: standard input as a turn, the reply on standard output."""

from __future__ import annotations

import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from clients.cli_base import assignments, complete_context, connect, json_option, model_option, new_names
from clients.tables import echo_json, plain
from ssmprov import wire
from ssmprov.errors import BadRequest
from ssmprov.transcript import FENCE, full_step, half_step

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply


@click.command()
@model_option
@click.option(
    "--context", "--load", "context", default="", metavar="NAME", shell_complete=complete_context,
    help="Continue this context (else an empty one).",
)  # fmt: skip
@click.option("--save", default="", metavar="NAME", shell_complete=complete_context, help="Move NAME to the result.")
@click.option("--create", is_flag=True, help="Start a context that does not exist yet empty.")
@click.option("--in", "role", default="", metavar="ROLE", help="Send the text as a turn of this role.")
@click.option("--out", "reply_role", default="", metavar="ROLE", help="Ask for a turn of this role.")
@click.option("--turn", type=click.IntRange(0), default=1, show_default=True, help="The number of the turn sent.")
@click.option("--settings", default="", metavar="SET", help="The sampling set (else the model's default).")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Override one setting, such as temp=0.5.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The seed of the draws.")
@click.option("--max-tokens", type=click.IntRange(0), help="At most so many tokens; 0 only reads the prompt.")
@click.option("--max-chars", type=click.IntRange(0), help="At most so many characters.")
@click.option("--stream/--no-stream", default=None, help="Write as it comes (the default on a terminal).")
@click.option("--bare", is_flag=True, help="Leave the closing fence out, and end the output with one newline.")
@json_option
@click.pass_context
def pipe(
    ctx: click.Context,
    /,
    role: str,
    reply_role: str,
    turn: int,
    pairs: tuple[str, ...],
    stream: bool | None,
    bare: bool,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Send standard input as a turn and write the reply.

    Without --in the text is sent as it is. With --in ROLE it becomes a closed turn, which the context only reads; with
    --out ROLE too, the model writes the next one. One newline at the end of the text is dropped then.

    \b
    echo "Say it." | ssmprov pipe --load primed --in USER --out INTERFACE

    Ctrl-C ends the turn and keeps what was read so far; a second one leaves at once.
    """
    if reply_role and not role:
        raise click.UsageError("--out needs --in: the role of the text that is sent")
    if any(character in word for word in (role, reply_role) for character in "[]\r\n"):
        raise click.UsageError("a role is one line without brackets, such as USER")
    if arguments["save"]:
        new_names(arguments["save"])
    arguments["values"] = assignments(pairs)
    prompt = templated(read_text(), turn, role, reply_role)
    with connect() as client:
        if stream is None:
            stream = sys.stdout.isatty()
        output = Output(live=stream and not as_json, bare=bare)
        reply = run(client, prompt, arguments, output.write)
    if as_json:
        echo_json({"text": reply.text, "request": reply.id, **plain(reply.result)})
    else:
        output.end()
    ctx.exit(130 if reply.result.stop == "cancelled" else 0)


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
    text = text.removesuffix("\n")
    return full_step(turn, role, text, reply_role) if reply_role else half_step(turn, role, text)


class Output:
    """Writes the reply to standard output: piece by piece when live, else whole; when bare, without its fence."""

    def __init__(self, *, live: bool, bare: bool) -> None:
        self.live = live
        self.bare = bare
        self._held = ""

    def write(self, piece: str) -> None:
        self._held += piece
        if self.live:
            keep = _may_be_fence(self._held) if self.bare else 0
            self._put(self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]

    def end(self) -> None:
        self._put(self._held.removesuffix(FENCE) + "\n" if self.bare else self._held)

    def _put(self, text: str) -> None:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()


def _may_be_fence(text: str) -> int:
    """How many characters at the end of `text` could be the beginning of a fence."""
    longest = min(len(FENCE), len(text))
    return next((n for n in range(longest, 0, -1) if FENCE.startswith(text[-n:])), 0)


def run(client: Client, prompt: str, arguments: dict[str, Any], write: Callable[[str], None]) -> Reply:
    """Run a turn in a thread of its own, so that this one can write its text and hear Ctrl-C at any moment."""
    events: queue.SimpleQueue[Callable[[], Reply | None]] = queue.SimpleQueue()
    request_id = wire.new_id()

    def ask() -> None:
        try:
            reply = client.turn(
                prompt,
                request_id=request_id,
                on_text=lambda piece: events.put(lambda: write(piece)),
                on_progress=lambda done, total: events.put(lambda: show(done, total)),
                **arguments,
            )
        except BaseException as error:
            events.put(_raiser(error))
        else:
            events.put(lambda: reply)

    def interrupted() -> None:
        client.cancel(request_id, "keep")

    with progress() as show, on_interrupt(lambda: events.put(interrupted)):
        threading.Thread(target=ask, name="turn", daemon=True).start()
        while (reply := events.get()()) is None:
            pass
    return reply


@contextmanager
def on_interrupt(first: Callable[[], None]) -> Iterator[None]:
    """Have the first Ctrl-C call `first`, wherever it strikes, so that no write is torn; the second one raises."""
    seen = False

    def handle(_number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            raise KeyboardInterrupt
        seen = True
        first()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raiser(error: BaseException) -> Callable[[], None]:
    def throw() -> None:
        raise error

    return throw


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while a prompt is read, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from tqdm import tqdm

    bar = tqdm(desc="reading", unit=" tokens", leave=False, delay=0.3, file=sys.stderr)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        bar.close()
