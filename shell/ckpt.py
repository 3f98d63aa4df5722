"""`ssmprov ckpt`: contexts and their checkpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from shell import store
from shell.lineage import draw
from shell.options import complete_context, connect, json_option, model_option, new_names, served, usual_model_option
from shell.store import store_option
from shell.tables import echo_json, echo_table
from ssmprov.formatting import moment, plain, short, size
from ssmprov.ops import Row, Shown
from ssmprov.terminal import printable


@click.group()
def ckpt() -> None:
    """List, show, fork, move, export and check contexts.

    Write a context as NAME, or as MODEL:NAME if several models have that name. NAME~2 is the step two turns before
    its head. #HEX is an object, by the beginning of its hash.
    """


for command in (
    store.export,
    store.import_,
    store.verify,
    store.backup,
    store.gc,
    store.replay,
):
    ckpt.add_command(command)


@ckpt.command()
@click.argument("prefix", default="", shell_complete=complete_context)
@click.option("--all", "reserved", is_flag=True, help="Include reserved names, such as a bridge's live context.")
@model_option
@store_option
@json_option
def ls(prefix: str, reserved: bool, model: str, store: Path | None, as_json: bool) -> None:
    """List the named contexts, or those whose names begin with PREFIX."""
    rows: list[Row] = []
    if store is not None:
        from workers import at_rest

        rows = at_rest.ls(store, prefix, reserved=reserved)
    else:
        with connect() as client:
            for name in served(client, model):
                after, more = "", True
                while more:
                    page = client.ls(prefix, model=name, after=after, reserved=reserved)
                    rows += page.rows
                    more, after = page.more and bool(page.rows), page.rows[-1].name if page.rows else ""
    if as_json:
        echo_json(rows)
        return
    echo_table(
        ("NAME", "MODEL", "OBJECT", "TOKENS", "STEPS", "SIZE", "CREATED", "PINNED"),
        [
            (r.name, r.model, short(r.object), r.tokens, r.steps, size(r.bytes), moment(r.created), r.pinned)
            for r in rows
        ],
    )


@ckpt.command()
@click.argument("context", shell_complete=complete_context)
@click.option("--text", is_flag=True, help="Print exactly the text that the context has read, and nothing else.")
@usual_model_option
@store_option
@json_option
def show(context: str, text: bool, model: str, store: Path | None, as_json: bool) -> None:
    """Show one context."""
    if store is not None:
        from workers import at_rest

        if text:
            sys.stdout.buffer.write(at_rest.text(store, context))
            return
        shown = at_rest.show(store, context)
    else:
        with connect() as client:
            if text:
                sys.stdout.buffer.write(client.text(context, model=model).encode())
                return
            shown = client.show(context, model=model)
    if as_json:
        echo_json(_flat(shown))
    else:
        _describe(shown)


def _flat(shown: Shown) -> dict[str, Any]:
    """The row's fields and the other fields in one dict."""
    fields: dict[str, Any] = plain(shown)
    return {**fields.pop("row"), **fields}


def _describe(shown: Shown) -> None:
    row = shown.row
    state = (
        size(row.bytes)
        + ("" if row.stored else ", stored as text only (replayed when used)")
        + ("" if row.exact else ", not exact")
    )
    lines = {
        "name": row.name,
        "model": f"{row.model} ({row.fingerprint[:12]})",
        "object": f"#{row.object}",
        "parent": f"#{row.parent}" if row.parent else "none (this is a root)",
        "read": f"{row.tokens} tokens in {row.steps} steps, {row.text_bytes} bytes of text",
        "state": state,
        "created": moment(row.created),
        "pinned": row.pinned or "no",
        "names": ", ".join(shown.names),
        "seed": "none" if shown.seed is None else str(shown.seed),
        "settings": " ".join(f"{key}={value:g}" for key, value in shown.settings.items()),
    }
    for key, value in lines.items():
        click.echo(f"{key:9}{printable(value)}".rstrip())


@ckpt.command()
@click.argument("context", shell_complete=complete_context)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many steps to show.")
@usual_model_option
@store_option
@json_option
def log(context: str, limit: int, model: str, store: Path | None, as_json: bool) -> None:
    """List the steps of a context's lineage, newest first."""
    if store is not None:
        from workers import at_rest

        found = at_rest.log(store, context, limit)
    else:
        with connect() as client:
            found = client.log(context, model=model, limit=limit)
    if as_json:
        echo_json(found.steps)
        return
    echo_table(
        ("OBJECT", "KIND", "TOKENS", "READ", "CREATED", "NAMES", "TEXT"),
        [
            (short(s.object), s.kind, s.tokens, s.step_tokens, moment(s.created), ", ".join(s.names), s.excerpt[:60])
            for s in found.steps
        ],
    )
    if found.more:
        click.echo("older steps are not shown: use a higher --limit to see them", err=True)


@ckpt.command()
@click.argument("context", default="", shell_complete=complete_context)
@model_option
@store_option
@json_option
def tree(context: str, model: str, store: Path | None, as_json: bool) -> None:
    """Draw lineages as a tree. With CONTEXT, draw only the one that it belongs to."""
    if store is not None:
        from workers import at_rest

        found, pins = at_rest.tree(store, context)
    else:
        with connect() as client:
            if context:
                row = client.show(context, model=model).row
                found = {row.model: client.tree(f"#{row.object}", model=row.model)}
            else:
                found = {each: client.tree(model=each) for each in served(client, model)}
            pins = client.status().pins
    if as_json:
        echo_json({each: steps.steps for each, steps in found.items()})
        return
    for each, steps in found.items():
        click.echo(each)
        for line in draw(steps.steps, {key.removeprefix(f"{each}:"): where for key, where in pins.items()}):
            click.echo(line)
        if steps.more:
            click.echo(f"{each}: some lineages are not shown: name a context to see its lineage", err=True)


@ckpt.command()
@click.argument("source", shell_complete=complete_context)
@click.argument("targets", nargs=-1, required=True)
@click.option(
    "--on",
    multiple=True,
    metavar="WORKER",
    help="Pin the copies to these workers, one after another (MODEL/1, 1 or w1).",
)
@click.option("--spread", is_flag=True, help="Pin the copies to all workers of the model, one after another.")
@click.option("--overwrite", is_flag=True, help="Move names that already exist.")
@usual_model_option
@json_option
def fork(
    source: str, targets: tuple[str, ...], on: tuple[str, ...], spread: bool, overwrite: bool, model: str, as_json: bool
) -> None:
    """Copy SOURCE under new names. A copy takes no extra space, and later changes independently of SOURCE.

    \b
    ssmprov ckpt fork primed coder --on w1
    ssmprov ckpt fork primed s1 s2 s3 --spread
    """
    if on and spread:
        raise click.UsageError("use either --on or --spread, not both")
    new_names(*targets)
    with connect() as client:
        found = client.fork(source, targets, model=model, on=on, spread=spread, overwrite=overwrite)
    if as_json:
        echo_json(found)
        return
    for target in found.targets:
        pin = f" on {found.pins[target]}" if target in found.pins else ""
        click.echo(f"{source} -> {target}{pin} ({found.ms:.1f} ms)", err=True)


@ckpt.command()
@click.argument("context", shell_complete=complete_context)
@click.argument("worker", default="")
@click.option("--unpin", is_flag=True, help="Remove the pin.")
@usual_model_option
def move(context: str, worker: str, unpin: bool, model: str) -> None:
    """Load a context on WORKER (MODEL/1, 1 or w1) and pin it there."""
    if bool(worker) == unpin:
        raise click.UsageError("give either a worker or --unpin")
    with connect() as client:
        client.move(context, worker, model=model)
    click.echo(f"{context} is unpinned" if unpin else f"{context} -> {worker}", err=True)


@ckpt.command()
@click.argument("contexts", nargs=-1, required=True, shell_complete=complete_context)
@usual_model_option
def rm(contexts: tuple[str, ...], model: str) -> None:
    """Remove names. `ssmprov ckpt gc` later deletes the checkpoints that nothing else needs."""
    with connect() as client:
        client.rm(contexts, model=model)
    click.echo(f"removed {', '.join(contexts)}", err=True)
