"""`ssmprov worker`: one worker of one model in the foreground."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from ssmprov import configuration, logs
from ssmprov.errors import Refused
from ssmprov.names import worker_name
from ssmprov.process import SUPERVISED, die_with_parent, failed
from workers.assembly import serve

log = logging.getLogger(__name__)

SWITCH_S = 0.0005
"""How often threads switch: pulses and cancels must get through while the model thread is busy."""


@click.command()
@click.option("--config", type=click.Path(path_type=Path), envvar="SSMPROV_CONFIG", help="The TOML configuration.")
@click.option("--home", type=click.Path(path_type=Path), envvar="SSMPROV_HOME", help="The working directory.")
@click.option("--broker", "endpoint", envvar="SSMPROV_BROKER", help="The broker's endpoint.")
@click.option("--model", required=True, help="The model's name in the configuration.")
@click.option("--index", type=click.IntRange(0, 9999), default=0, show_default=True, help="The worker's number.")
def worker(config: Path | None, home: Path | None, endpoint: str | None, model: str, index: int) -> None:
    """Load a model and serve it through the broker until SIGTERM or Ctrl-C."""
    die_with_parent()
    if SUPERVISED in os.environ:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    try:
        logs.start(worker_name(model, index))
        configured = configuration.load(config, home)
        table = configured.model(model)
        serve(configured, table, index, endpoint or configured.endpoints()[0])
    except Exception as error:
        sys.exit(failed(error, log, again=(Refused.code,)))
    except KeyboardInterrupt:
        sys.exit(130)
