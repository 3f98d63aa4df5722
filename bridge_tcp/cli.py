"""`ssmprov bridge`: runs one bridge in the foreground."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import click
import msgspec

from bridge_tcp.server import Server
from clients.aio import AsyncClient
from ssmprov import configuration, durable, logs
from ssmprov.configuration import BridgeTable, Configuration
from ssmprov.errors import BadRequest
from ssmprov.keys import INSECURE_VARIABLE
from ssmprov.process import SUPERVISED, die_with_parent, failed, heard, ready

log = logging.getLogger(__name__)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), envvar="SSMPROV_CONFIG", help="The TOML configuration.")
@click.option("--home", type=click.Path(path_type=Path), envvar="SSMPROV_HOME", help="The working directory.")
@click.option("--broker", "endpoint", envvar="SSMPROV_BROKER", help="The broker's endpoint.")
@click.option(
    "--index", type=click.IntRange(0), help="Number of the [[bridge]] table in the configuration, counted from 0."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to use instead of the configured one; 0 picks a free port."
)
@click.option("--model", help="Model to use instead of the configured one.")
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path),
    help="File to write the address to (JSON) once the bridge is serving.",
)
@click.option(
    "--insecure",
    is_flag=True,
    envvar=INSECURE_VARIABLE,
    help="Let other machines connect, without authentication. Not recommended.",
)
def bridge(
    config: Path | None,
    home: Path | None,
    endpoint: str | None,
    index: int | None,
    port: int | None,
    model: str | None,
    ready_file: Path | None,
    insecure: bool,
) -> None:
    """Serve the NUL-terminated TCP protocol of the old tools until SIGTERM or Ctrl-C."""
    die_with_parent()
    try:
        logs.start("bridge")
        configured = configuration.load(config, home)
        table = choose(configured, index, port, model)
        logs.start(f"bridge/{table.port or index or 0}")
        client = AsyncClient(endpoint or configured.endpoints()[0], home=configured.home, agent="bridge")
        asyncio.run(run(client, table, ready_file, insecure=insecure))
    except Exception as error:
        sys.exit(failed(error, log))


def choose(configured: Configuration, index: int | None, port: int | None, model: str | None) -> BridgeTable:
    """The bridge to run: number `index`, or the one on `port`, or the only one. `port` and `model` override its table.

    Raises BadRequest if no bridge or more than one fits.
    """
    tables = configured.tables.bridge
    given = {key: value for key, value in (("port", port), ("model", model)) if value is not None}
    if index is not None:
        if index >= len(tables):
            raise BadRequest(f"there is no bridge {index}: {len(tables)} are configured, counted from 0")
        return msgspec.structs.replace(tables[index], **given)
    fitting = [table for table in tables if (not port or table.port == port) and model in (None, table.model)]
    if len(fitting) == 1:
        return msgspec.structs.replace(fitting[0], **given)
    model = model or configured.default
    if port is not None and model:
        return BridgeTable(port=port, model=model)
    if fitting:
        raise BadRequest("several bridges are configured: choose one with --index or --port")
    raise BadRequest("no such bridge is configured: pass --port and --model")


async def run(client: AsyncClient, table: BridgeTable, ready_file: Path | None, *, insecure: bool = False) -> None:
    """Serve one bridge until a signal stops it."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in heard(signal.SIGTERM, signal.SIGINT):
        ours = number == signal.SIGTERM or SUPERVISED not in os.environ
        loop.add_signal_handler(number, stop.set if ours else lambda: None)
    async with client:
        server = Server(client, table, insecure=insecure)
        listening = await server.start()
        if ready_file is not None:
            durable.replace(ready_file, json.dumps({"port": server.port, "host": table.host}).encode() + b"\n")
        log.info("%s listens on %s:%d", table.model, table.host, server.port)
        ready()
        try:
            await server.serve(listening, stop)
        finally:
            if ready_file is not None:
                durable.remove(ready_file)
