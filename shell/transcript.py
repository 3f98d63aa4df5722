"""`ssmprov get|put|run|quote` (also GET_FILE, PUT_FILE, RUN, QUOTE): tools for the working directory's transcript."""

from __future__ import annotations

import codecs
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from shell import turns
from shell.tables import echo_json
from shell.terminal import Output, notice, on_interrupt, say
from shell.turns import TurnAnswer, TurnRequest
from ssmprov import durable
from ssmprov.errors import BadRequest
from ssmprov.formatting import plain
from ssmprov.terminal import printable
from ssmprov.transcript import Turn, half_step, oddities
from ssmprov.transcript import quote as quoted
from transcripts.record import guarded
from transcripts.textfile import bytes_of, text_of

RUNNABLE = ("BASH", "PYTHON")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("words", nargs=-1, required=True, metavar="[TURN] NAME")
@click.option(
    "--force", is_flag=True, help="Write even to a dot file of the working directory, or through a link that leaves it."
)
def get(words: tuple[str, ...], force: bool) -> None:
    """Write the content of a FILE turn (number TURN, or the last one) to the file NAME (`-`: standard output)."""
    if len(words) > 2:
        raise click.UsageError("too many words: write [TURN] NAME")
    number = _number(words[0]) if len(words) == 2 else None
    content = turns.here().turn(number, "FILE").content.encode("utf-8", "surrogateescape")
    if words[-1] == "-":
        sys.stdout.buffer.write(content)
        return
    path = Path(words[-1])
    _off_limits(path, force)
    if path.is_dir():
        raise BadRequest(f"{path} is a folder: give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, content)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@turns.turn_options
@click.option("-v", "--verbose", is_flag=True, help="Also print the server's reply, the rest of the fence.")
def put(file: Path, as_json: bool, verbose: bool, **options: Any) -> None:
    """Add the content of FILE as a FILE turn, byte for byte. The context reads it."""
    content = text_of(file)
    _send(TurnRequest(**options), "FILE", content, as_json, verbose)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("turn", type=click.IntRange(0))
@turns.turn_options
@click.option("-v", "--verbose", is_flag=True, help="Also print the server's reply, the rest of the fence.")
def quote(turn: int, as_json: bool, verbose: bool, **options: Any) -> None:
    """Add a QUOTE turn that quotes turn TURN as a Markdown block quote, with its header in the first line."""
    found = turns.here().turn(turn)
    _send(TurnRequest(**options), "QUOTE", quoted(found), as_json, verbose)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("turn", required=False, type=click.IntRange(0))
@click.option(
    "--timeout", type=click.FloatRange(0.1, 86_400), default=60.0, show_default=True, help="The time limit in seconds."
)
@click.option("--network", is_flag=True, help="Allow the code to use the network.")
@click.option("--unsafe", is_flag=True, help="Run the code without a sandbox: it can do everything that you can.")
@click.option("--no-send", is_flag=True, help="Only run the code, without adding an OUTPUT turn.")
@turns.turn_options
@click.option("-v", "--verbose", is_flag=True, help="Also print the server's reply, the rest of the fence.")
@click.pass_context
def run(
    ctx: click.Context,
    /,
    turn: int | None,
    timeout: float,
    network: bool,
    unsafe: bool,
    no_send: bool,
    as_json: bool,
    verbose: bool,
    **options: Any,
) -> None:
    """Run the code of a BASH or PYTHON turn (TURN, or the last one) in a sandbox, and add an OUTPUT turn.

    The code may write files below the working directory, except dot files, and nothing else. It cannot use the network.
    Its output is shown as it arrives.
    """
    from sandbox.run import Ended, Limits
    from sandbox.run import run as run_fenced

    request = TurnRequest(**options)
    request.check()
    place = turns.here()
    found = place.turn(turn, *RUNNABLE)

    def execute() -> Ended:
        enough = threading.Event()
        with guarded(place), on_interrupt(enough.set):
            return run_fenced(
                "PYTHON" if found.role == "PYTHON" else "BASH",
                found.content,
                place.directory,
                limits=Limits(timeout_s=timeout),
                network=network,
                unsafe=unsafe,
                on_output=None if as_json else _shower(),
                cancelled=enough,
            )

    done: TurnAnswer | None = None
    if no_send:
        with place.locked():  # nobody else writes dot files meanwhile: the sandbox could not tell whose they are
            ended = execute()
        output = text_of_output(ended.output, ended.status, ended.reason)
    else:
        results: list[Ended] = []

        def compose(number: int) -> tuple[str, int]:
            results.append(execute())
            written = text_of_output(results[0].output, results[0].status, results[0].reason)
            return half_step(number, "OUTPUT", written.removesuffix("\n")), number

        done = turns.recorded(place, request, compose, Output(live=False, bare=False))
        (ended,) = results
        output = text_of_output(ended.output, ended.status, ended.reason)
    if ended.dropped:
        names = ", ".join(ended.dropped[:5])
        notice(f"the code may not change these files, so the changes were dropped: {printable(names)}")
    if as_json:
        echo_json(
            {"ran": found.number, "status": ended.status, "reason": ended.reason, "output": output}
            | ({} if done is None else _numbers(done))
        )
    elif done is not None and verbose:
        say(done.text)
    ctx.exit(130 if ended.reason == "cancelled" else 0)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, file: Path | None, as_json: bool) -> None:
    """List anything unusual in a transcript, line by line. The exit code is 1 if it finds anything.

    It reads FILE (`-`: standard input), or the transcript of the working directory.
    """
    from ssmprov.transcript import parse

    if file is None:
        items = turns.here().transcript().items
    else:
        data = sys.stdin.buffer.read() if str(file) == "-" else bytes_of(file, -1)
        items = parse(data.decode("utf-8", "surrogateescape"))
    odd = list(oddities(items))
    if as_json:
        numbered = [item for item in items if isinstance(item, Turn)]
        rows = [
            {"turn": t.number, "role": t.role, "line": t.line, "closed": t.closed, "chars": len(t.content)}
            for t in numbered
        ]
        echo_json({"turns": rows, "odd": [{"line": oddity.line, "what": oddity.what} for oddity in odd]})
    else:
        for oddity in odd:
            click.echo(printable(str(oddity)))
    ctx.exit(1 if odd else 0)


def text_of_output(output: bytes, status: int, reason: str) -> str:
    """The output of a run as the content of a turn: with the limit that ended it, or its exit status if not 0."""
    text = output.decode("utf-8", "replace").replace("\0", "\ufffd")
    if text and not text.endswith("\n"):
        text += "\n"
    if reason:
        text += f"[ended: {reason}]\n"
    elif status:
        text += f"[exit status {status}]\n"
    return text


def _send(request: TurnRequest, role: str, content: str, as_json: bool, verbose: bool) -> None:
    request.check()
    done = turns.half(turns.here(), request, role, content)
    if as_json:
        echo_json(_numbers(done))
    elif verbose:
        say(done.text)


def _numbers(done: TurnAnswer) -> dict[str, Any]:
    found: dict[str, Any] = {"turn": done.number}
    if done.details:
        found |= {"request": done.details["request"], **plain(done.details["result"])}
    return found


def _shower() -> Callable[[bytes], None]:
    """A function that prints the code's output as it arrives; a terminal gets no control sequences."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    return lambda data: say(decoder.decode(data))


def _number(word: str) -> int:
    if not word.isdecimal() or len(word) > 18:
        raise click.UsageError(f"{word!r} is not a turn number: write [TURN] NAME")
    return int(word)


def _off_limits(path: Path, force: bool) -> None:
    """Refuse to overwrite dot files of the working directory with content of a transcript.

    Also refuse to write through a symbolic link to a place outside: code that RUN executed may have made the link.
    """
    here = Path.cwd().resolve()
    target = path.resolve()
    if not target.is_relative_to(here):
        if Path(os.path.abspath(path)).is_relative_to(here) and not force:
            raise BadRequest(
                f"{path} is a link to {target}, outside the working directory: use --force to write there anyway"
            )
        return
    inner = target.relative_to(here)
    if inner.parts and inner.parts[0].startswith(".") and not force:
        raise BadRequest(
            f"{path} is a dot file of the working directory, which is protected: use --force to write it anyway"
        )
