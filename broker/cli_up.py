"""`ssmprov up`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from broker.supervise import Supervisor
from ssmprov import logs
from ssmprov.configuration import CONFIG_FILE, Configuration, load_or_shipped
from ssmprov.keys import INSECURE_VARIABLE
from ssmprov.process import die_with_parent
from ssmprov.rooms import SHIPPED

log = logging.getLogger(__name__)


@click.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="SSMPROV_CONFIG",
    help="The TOML file to serve. Default: ssmprov.toml in the working directory, or else the one that ssmprov ships.",
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write this file (JSON: endpoint, ports, process ids) once everything serves. It is removed when `up` ends.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar=INSECURE_VARIABLE,
    help="Let other machines connect to the broker and the bridges without keys. Not recommended.",
)
@click.option("--at-once", is_flag=True, hidden=True)
@click.pass_context
def up(ctx: click.Context, config: Path | None, ready_file: Path | None, insecure: bool, at_once: bool) -> None:
    """Start the broker, workers and bridges of one configuration, and keep them running until Ctrl-C.

    A process that ends is started again. Press Ctrl-C twice to stop faster.
    """
    die_with_parent()
    logs.start("up")
    configuration, source = chosen(config)
    ready = ready_file.absolute() if ready_file else None
    ctx.exit(Supervisor(configuration, source, ready, insecure=insecure, at_once=at_once).run())


def chosen(config: Path | None) -> tuple[Configuration, Path]:
    """The configuration to serve and its file: the named one, that of the working directory, or the shipped one."""
    found = load_or_shipped(config)
    assert found.source is not None, "the shipped configuration has a file"
    if found.source == SHIPPED:
        log.info("there is no %s: serving the shipped %s", found.home / CONFIG_FILE, SHIPPED)
    return found, found.source
