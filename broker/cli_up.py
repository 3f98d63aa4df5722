"""`ssmprov up`."""

from __future__ import annotations

from pathlib import Path

import click

from broker.supervise import Supervisor
from ssmprov.configuration import CONFIG_FILE, Configuration, home_of, load
from ssmprov.keys import INSECURE_VARIABLE
from ssmprov.rooms import CONFIG


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SSMPROV_CONFIG",
    help="The TOML file to serve (else ssmprov.toml of the working directory, else the shipped one).",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write this file (JSON: endpoint, ports, process ids) when everything serves; it goes when `up` ends.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar=INSECURE_VARIABLE,
    help="Let broker and bridges listen beyond this machine without keys: not advised.",
)
@click.pass_context
def up(ctx: click.Context, config: Path | None, ready_file: Path | None, insecure: bool) -> None:
    """Start broker, workers and bridges of one configuration, and watch over them, until Ctrl-C.

    A process that is lost is started again. A second Ctrl-C hurries the end.
    """
    configuration, source = chosen(config)
    ready = ready_file.absolute() if ready_file else None
    ctx.exit(Supervisor(configuration, source, ready, insecure=insecure).run())


def chosen(config: Path | None) -> tuple[Configuration, Path]:
    """The configuration to serve and its file: the one named, the working directory's own, or the shipped one."""
    if config is None and not (home_of() / CONFIG_FILE).exists():
        shipped = CONFIG / "default.toml"
        click.echo(f"up | there is no {home_of() / CONFIG_FILE}: the shipped {shipped} is served", err=True)
        return load(shipped, home_of()), shipped
    source = (config or home_of() / CONFIG_FILE).absolute()
    return load(source), source
