"""`ssmprov say`: one answer, without fence or turn number, from a broker that is started for it if none runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import click

from shell.options import assignments, complete_context, connect, model_option, new_names, usual_model
from shell.pipe import read_text
from shell.terminal import Output, notice, on_interrupt, run
from ssmprov.errors import Conflict
from ssmprov.names import split_model

if TYPE_CHECKING:
    from clients.blocking import Client
    from clients.requests import Reply

ATTEMPTS = 8
"""How often a turn is sent if others take its turn in the context first."""

STDIN = "-"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("text", default=STDIN)
@click.option(
    "--to",
    default="",
    metavar="NAME",
    shell_complete=complete_context,
    help="Continue this context and save it. It begins if it does not exist.",
)
@model_option
@click.option("--settings", default="", metavar="SET", help="The sampling set (default: the model's).")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One setting, such as temp=0.5.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The random seed.")
@click.option("--max-tokens", type=click.IntRange(1), help="Generate at most this many tokens.")
@click.option("--stream/--no-stream", default=None, help="Print the answer as it arrives (the default on a terminal).")
@click.pass_context
def say(
    ctx: click.Context,
    text: str,
    to: str,
    model: str,
    settings: str,
    pairs: tuple[str, ...],
    seed: int | None,
    max_tokens: int | None,
    stream: bool | None,
) -> None:
    """Say TEXT to a model and print its answer. Without TEXT, or with -, it is read from standard input.

    \b
    ssmprov say "What is a context?"
    ssmprov say --to luna "My cat is called Luna."

    Without --to, nothing is saved. If no broker is running, one is started for this answer.
    """  # fmt: skip
    new_names(*filter(None, [to]))
    values = assignments(pairs)
    if text == STDIN:
        text = read_text().removesuffix("\n")
    if not text:
        raise click.UsageError("there is nothing to say: give a text, or pipe one in")
    output = Output(live=sys.stdout.isatty() if stream is None else stream, bare=True)
    arguments: dict[str, Any] = {
        "to": to,
        "model": model or usual_model(to),
        "settings": settings,
        "values": values,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    with _served(arguments["model"], to) as client:
        reply = _ask(client, text, arguments, output)
        output.end()
        if to and not reply.result.parent:
            notice(f"started the context {to}")
        if reply.result.stop == "limit":
            which = "--max-tokens" if max_tokens is not None else "--set max=CHARACTERS"
            notice(f"the answer was cut at its limit, after {reply.result.reply_tokens} tokens: raise {which}")
    ctx.exit(130 if reply.result.stop == "cancelled" else 0)


def _ask(client: Client, text: str, arguments: dict[str, Any], output: Output) -> Reply:
    """Send the turn, and send it again if another turn of the context came first. Nothing was printed by then."""
    for _ in range(ATTEMPTS - 1):
        try:
            return run(client, text, arguments, output, "close", send=client.say)
        except Conflict:
            continue
    return run(client, text, arguments, output, "close", send=client.say)


@contextmanager
def _served(model: str, to: str) -> Iterator[Client]:
    """A client of the broker that runs, or of one that runs only now."""
    from clients.link import choose_endpoint
    from ssmprov.sockets import somebody_listens

    if os.environ.get("SSMPROV_BROKER") or somebody_listens(choose_endpoint(None, None)):
        with connect() as client:
            yield client
        return
    from clients.blocking import Client
    from shell.embedded import embedded
    from shell.store import owner_at_rest
    from ssmprov.configuration import load_or_shipped

    named = os.environ.get("SSMPROV_CONFIG")
    configured = load_or_shipped(Path(named) if named else None)
    written, context = split_model(to)
    model = written or model or owner_at_rest(configured, context)
    stop = Event()  # a signal ends nothing halfway: the broker for this answer is to be ended as well
    with on_interrupt(stop.set):
        notice("no broker is running: starting one for this answer (`ssmprov up` keeps one running)")
        with embedded(configured, model, stop, saves=bool(to)) as endpoint, Client(endpoint, agent="cli") as client:
            if stop.is_set():
                raise KeyboardInterrupt
            yield client
