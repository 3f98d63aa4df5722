"""`ssmprov composer`: the window, which is loaded only when it is opened."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ssmprov.causes import expanded


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "directory", default=".", type=click.Path(path_type=Path, file_okay=False, exists=True), metavar="[DIRECTORY]"
)
@click.option("--model", default="", metavar="MODEL", help="The model to use (default: $SSMPROV_MODEL).")
@click.option("--context", default="", metavar="NAME", help="Continue this context (default: the directory's own).")
@click.pass_context
def composer(ctx: click.Context, directory: Path, model: str, context: str) -> None:
    """Open the Composer on the transcript in DIRECTORY (default: the current directory)."""
    expanded("~")  # libraries of the window need a home directory
    from composer.display import check_display

    check_display()
    from composer.app import run

    ctx.exit(run(directory.resolve(), model or os.environ.get("SSMPROV_MODEL", ""), context))
