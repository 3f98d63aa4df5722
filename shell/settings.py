"""`ssmprov settings`: sampling sets."""

from __future__ import annotations

import click

from shell.options import assignments, complete_set, connect, json_option, usual_model_option
from shell.tables import echo_json, echo_table


@click.group()
def settings() -> None:
    """List, show and write sampling sets."""


@settings.command("ls")
@usual_model_option
@json_option
def ls(model: str, as_json: bool) -> None:
    """List the sampling sets of a model. Its own come first, then the shipped ones."""
    with connect() as client:
        found = client.settings_ls(model=model)
    if as_json:
        echo_json(found)
        return
    for name in found.names:
        click.echo(f"{name} (default)" if name == found.default else name)


@settings.command("show")
@click.argument("name", default="", shell_complete=complete_set)
@usual_model_option
@json_option
def show(name: str, model: str, as_json: bool) -> None:
    """Show a sampling set, or the model's default."""
    with connect() as client:
        found = client.settings_show(name, model=model)
    if as_json:
        echo_json(found)
    else:
        echo_table(("SETTING", "VALUE"), [(key, f"{value:g}") for key, value in found.values.items()])


@settings.command("set")
@click.argument("name", shell_complete=complete_set)
@click.argument("pairs", metavar="KEY=VALUE...", nargs=-1, required=True)
@click.option(
    "--base",
    default="",
    metavar="SET",
    shell_complete=complete_set,
    help="Start from this set (default: the model's default set).",
)
@usual_model_option
@json_option
def set_(name: str, pairs: tuple[str, ...], base: str, model: str, as_json: bool) -> None:
    """Write the sampling set NAME. It is a copy of a base set with the given values changed.

    \b
    ssmprov settings set coder temp=0.2 top_k=20
    """
    values = assignments(pairs)
    with connect() as client:
        found = client.settings_set(name, values, base=base, model=model)
    if as_json:
        echo_json(found)
    else:
        click.echo(f"saved {found.name} ({found.bytes} bytes)", err=True)
