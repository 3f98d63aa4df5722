"""`ssmprov ckpt export|import|verify|backup|gc|replay`: maintenance of stores, served or (`--store`) at rest."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import click

from shell.options import complete_context, connect, json_option, new_names, usual_model_option
from shell.tables import echo_json
from ssmprov import encoding
from ssmprov.configuration import Configuration
from ssmprov.durable import Replacement
from ssmprov.errors import BadRequest
from ssmprov.formatting import short, size
from ssmprov.terminal import printable

F = TypeVar("F", bound=Callable[..., object])


def store_option(command: F) -> F:
    return click.option(
        "--store",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Use the store in DIR directly, without a broker.",
    )(command)


def owner_at_rest(configured: Configuration, name: str) -> str:
    """The model of a context while nothing serves: the default, or the only other one that has it. Raises BadRequest.

    Without a name, or if no model has it, this is the default model, too.
    """
    if not name or len(configured.tables.model) < 2:
        return configured.default
    from workers import at_rest

    owners = at_rest.owners(configured, name)
    if len(owners) > 1 and configured.default not in owners:
        raise BadRequest(f"several models have {name!r}: write {' or '.join(f'{owner}:{name}' for owner in owners)}")
    return configured.default if configured.default in owners or not owners else owners[0]


@click.command()
@usual_model_option
@store_option
@click.option(
    "--repair",
    is_flag=True,
    help="Repair what can be repaired; nothing is deleted. To repair the catalogue, add --store.",
)
@json_option
@click.pass_context
def verify(ctx: click.Context, model: str, store: Path | None, repair: bool, as_json: bool) -> None:
    """Hash every object again and check every lineage. The exit code is 1 if something is wrong."""
    if store is not None:
        from workers import at_rest

        found = at_rest.repair(store, model) if repair else at_rest.verify(store)
    else:
        with connect() as client:
            found = client.repair(model=model) if repair else client.verify(model=model)
    if as_json:
        echo_json(found)
    else:
        for sentence in found.repairs:
            click.echo(f"repaired: {printable(sentence)}")
        for fault in found.faults:
            click.echo(printable(fault))
        summary = f"{found.objects} objects, {size(found.bytes)}, {len(found.faults)} faults"
        click.echo(f"{summary} left, {len(found.repairs)} repairs" if repair else summary, err=bool(found.faults))
    ctx.exit(1 if found.faults else 0)


@click.command()
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path, file_okay=False))
@usual_model_option
@click.option(
    "--store",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Copy the store in DIR instead of a configured model's.",
)
@json_option
@click.pass_context
def backup(ctx: click.Context, target: Path, model: str, store: Path | None, as_json: bool) -> None:
    """Copy a store to the directory DEST, even while it serves. A later run to the same DEST copies only what is new.

    It reads the store's own files, so run it on the machine where the workers run. DEST is a store, too: check it with
    `ssmprov ckpt verify --store DEST`. The exit code is 1 if the store, and therefore the backup, lacks an object.
    """
    from workers import at_rest

    found = at_rest.backup(store, model, target)
    if as_json:
        echo_json(found)
    else:
        for fault in found.faults:
            click.echo(printable(fault), err=True)
        click.echo(
            f"{target}: {found.objects} objects, {size(found.bytes)}, of which {found.copied} "
            f"({size(found.copied_bytes)}) were copied now",
            err=True,
        )
    ctx.exit(1 if found.faults else 0)


@click.command()
@usual_model_option
@store_option
@click.option("--dry-run", is_flag=True, help="Only report what would be deleted.")
@json_option
def gc(model: str, store: Path | None, dry_run: bool, as_json: bool) -> None:
    """Delete the checkpoints that no name, history or pin needs."""
    if store is not None:
        from workers import at_rest

        found = at_rest.gc(store, dry_run=dry_run)
    else:
        with connect() as client:
            found = client.gc(model=model, dry_run=dry_run)
    if as_json:
        echo_json(found)
    else:
        verb = "would be deleted" if dry_run else "deleted"
        click.echo(
            f"{found.objects} objects ({size(found.bytes)}) and {found.steps} steps {verb}, {found.kept} objects kept"
        )


@click.command()
@click.argument("context", shell_complete=complete_context)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@usual_model_option
@store_option
@json_option
def export(context: str, file: Path, model: str, store: Path | None, as_json: bool) -> None:
    """Write CONTEXT and its lineage to one FILE (`-`: standard output)."""
    path = _written(file)
    if store is not None:
        from workers import at_rest

        with Replacement(path, mode=0o600) as new:
            found = at_rest.export(store, context, new.part)
    else:
        with connect() as client:
            found = client.export(context, path, model=model)
    if as_json and str(file) != "-":
        echo_json(found)
    else:
        click.echo(
            f"{context} -> {_shown(file)}: {size(found.bytes)}, {found.steps} steps, sha256 {found.sha256}", err=True
        )


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True))
@click.argument("name")
@usual_model_option
@store_option
@click.option(
    "--trust",
    is_flag=True,
    help="Accept the kv.pkl of an old runner. The file does not say which model wrote it, so you must know.",
)
@json_option
def import_(file: Path, name: str, model: str, store: Path | None, trust: bool, as_json: bool) -> None:
    """Import an exported FILE (`-`: standard input) under NAME."""
    if trust and store is not None:
        raise click.UsageError("--trust needs a model that is being served: leave out --store")
    new_names(name)
    with _read(file) as path:
        if store is not None:
            from workers import at_rest

            row = at_rest.import_(store, path, name)
        else:
            with connect() as client:
                row = client.import_(path, name, model=model, trust=trust)
    if as_json:
        echo_json(row)
    else:
        click.echo(f"{_shown(file)} -> {row.name}: {short(row.object)}, {row.tokens} tokens", err=True)


@click.command()
@click.argument("context", default="", shell_complete=complete_context)
@click.option("--save", default="", metavar="NAME", help="Save the result under NAME.")
@click.option("--to", default="", metavar="MODEL", help="Read the context's text into another model.")
@click.option(
    "--prime",
    type=click.File("rb"),
    metavar="FILE",
    help="Read the text in FILE instead (`-`: standard input).",
)
@usual_model_option
@json_option
@click.pass_context
def replay(
    ctx: click.Context, context: str, save: str, to: str, prime: IO[bytes] | None, model: str, as_json: bool
) -> None:
    """Read a context again from its root and compare. The exit code is 1 if the text differs."""
    if bool(context) == bool(prime):
        raise click.UsageError("give either a context or --prime FILE")
    if save:
        new_names(save)
    with connect() as client:
        if prime:
            text = encoding.text_of(prime.read(), prime.name)
            found = client.replay(model=to or model, save=save, prime=text)
        elif to:
            found = client.replay(model=to, save=save, prime=client.text(context, model=model))
        else:
            found = client.replay(context, model=model, save=save)
    if as_json:
        echo_json(found)
    else:
        equal = "the text is equal" if found.text_equal else "the text DIFFERS"
        click.echo(f"{found.tokens} tokens read in {found.ms:.0f} ms: {equal}")
        if found.largest_difference is not None:
            click.echo(f"largest difference between the two states: {found.largest_difference:.3g}")
    ctx.exit(0 if found.text_equal else 1)


def _shown(file: Path) -> str:
    return "the pipe" if str(file) == "-" else str(file)


def _written(file: Path) -> Path:
    """Where to write an export (`-`: standard output)."""
    if str(file) != "-":
        return file
    if sys.stdout.isatty():
        raise click.UsageError("an exported file is binary: write it to a file or a pipe, not to the terminal")
    return Path("/dev/stdout")


@contextmanager
def _read(file: Path) -> Iterator[Path]:
    """A path to read from. For `-`, a temporary file with the content of standard input."""
    if str(file) != "-":
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="ssmprov-") as target:
        shutil.copyfileobj(sys.stdin.buffer, target)
        target.flush()
        yield Path(target.name)
