"""`ssmprov broker`: one broker in the foreground."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import time
from pathlib import Path

import click

from broker.keys import Gate
from broker.loop import Loop
from broker.machine import Broker
from broker.metrics import Metrics
from broker.state import Bounds
from ssmprov import configuration, logs, wire
from ssmprov.configuration import parse_size
from ssmprov.keys import INSECURE_VARIABLE
from ssmprov.process import SUPERVISED, die_with_parent, failed

log = logging.getLogger(__name__)

FILES = 65_536


@click.command()
@click.option("--config", type=click.Path(path_type=Path), envvar="SSMPROV_CONFIG", help="The TOML configuration.")
@click.option("--home", type=click.Path(path_type=Path), envvar="SSMPROV_HOME", help="The working directory.")
@click.option("--listen", multiple=True, help="Listen here instead of at the configured endpoints. May be repeated.")
@click.option(
    "--insecure",
    is_flag=True,
    envvar=INSECURE_VARIABLE,
    help="Let other machines connect without keys. Not recommended.",
)
def broker(config: Path | None, home: Path | None, listen: tuple[str, ...], insecure: bool) -> None:
    """Run the broker until SIGTERM or Ctrl-C, then drain it."""
    die_with_parent()
    if SUPERVISED in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    _open_many_files()
    try:
        logs.start("broker")
        configured = configuration.load(config, home)
        table = configured.tables.broker
        endpoints = [configuration.endpoint_of(text, configured.home) for text in listen] or configured.endpoints()
        bounds = Bounds(
            queue=table.queue,
            queue_per_client=table.queue_per_client,
            queue_bytes=parse_size(table.queue_bytes),
            answers_bytes=parse_size(table.answers_bytes),
            peers=table.connections,
            peers_per_key=table.connections_per_key,
            requests_per_s=table.requests_per_s,
        )
        metrics = Metrics(table.metrics_port) if table.metrics_port is not None else None
        expected = frozenset(model.name for model in configured.tables.model)
        machine = Broker(
            wire.new_id(),
            time.monotonic(),
            bounds,
            os.getpid(),
            expected,
            default=configured.default,
            debug=log.isEnabledFor(logging.DEBUG),
        )
        gate = Gate(configured.home) if _wants_keys(endpoints) and Gate.has_keys(configured.home) else None
        Loop(endpoints, machine, metrics, gate, insecure=insecure, memory=parse_size(table.memory)).run()
        if metrics:
            metrics.close()
    except Exception as error:
        sys.exit(failed(error, log))


def _open_many_files() -> None:
    """Allow as many connections as this system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        wanted = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _wants_keys(endpoints: list[str]) -> bool:
    return any(endpoint.startswith("tcp://") for endpoint in endpoints)
