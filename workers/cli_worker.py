"""`ssmprov worker`: one worker of one model in the foreground."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from ssmprov import configuration, logs, wire
from ssmprov.configuration import Configuration, ModelTable, parse_size
from ssmprov.errors import BadRequest, SsmprovError
from ssmprov.keys import credentials_for
from ssmprov.names import worker_name
from ssmprov.process import EXIT_CONFIGURATION, SUPERVISED, die_with_parent
from ssmprov.settings import Sets
from workers import scratch
from workers.adoption import Adoption
from workers.answers import Answers
from workers.batch import Batch
from workers.checkpoints import Store
from workers.checkpoints.weights import FOLDER
from workers.families import default_set
from workers.hot import HotStates
from workers.probing import Prober
from workers.reading import Pace
from workers.runtimes import base
from workers.service import Service
from workers.turns import Turns, vocabulary_of
from workers.worker import Place, Worker

log = logging.getLogger(__name__)

EMBEDDED = ("@mini", "@asm-mini")

SWITCH_S = 0.0005
"""Threads hand the interpreter over that often, so that pulses and cancels live beside a busy model thread."""


@click.command()
@click.option("--config", type=click.Path(path_type=Path), envvar="SSMPROV_CONFIG", help="The TOML configuration.")
@click.option("--home", type=click.Path(path_type=Path), envvar="SSMPROV_HOME", help="The working directory.")
@click.option("--broker", "endpoint", envvar="SSMPROV_BROKER", help="The broker's endpoint.")
@click.option("--model", required=True, help="The model's name in the configuration.")
@click.option("--index", type=click.IntRange(0, 9999), default=0, show_default=True, help="Which of its workers.")
def worker(config: Path | None, home: Path | None, endpoint: str | None, model: str, index: int) -> None:
    """Load a model and serve it through the broker until SIGTERM or Ctrl-C."""
    die_with_parent()
    supervised = SUPERVISED in os.environ
    if supervised:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.setswitchinterval(SWITCH_S)
    try:
        logs.start(worker_name(model, index))
        configured = configuration.load(config, home)
        table = configured.model(model)
        serve(configured, table, index, endpoint or configured.endpoints()[0])
    except SsmprovError as error:
        log.error("%s", error)
        lasting = not error.retry and error.code != "refused"
        sys.exit(EXIT_CONFIGURATION if supervised and lasting else error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def serve(configured: Configuration, table: ModelTable, index: int, endpoint: str) -> None:
    """Load, register, and serve until drained."""
    credentials = credentials_for(endpoint, configured.home, "worker")
    runtime = base.load(table.runtime, _plan(configured, table, index))
    directory = configured.store(table)
    name = worker_name(table.name, index)
    embedded = table.path in EMBEDDED
    settings = table.settings or default_set("mini" if embedded else runtime.identity.architecture)
    with Store(
        directory, table.name, runtime.identity, keep_steps=table.keep_steps, max_names=table.max_names
    ) as store:
        scratch.sweep(directory)
        hot = HotStates(parse_size(table.hot_bytes))
        card = wire.ModelCard(
            table.name,
            table.runtime,
            runtime.identity.fingerprint,
            runtime.identity.layout,
            runtime.vocabulary,
            runtime.state_bytes,
            runtime.identity.dtype,
            settings,
        )
        place = Place(name, card, store.uuid, runtime.slots, table.stall_s)
        front = Worker(endpoint, place, credentials)
        front.batch = Batch(runtime, Pace(table.slice_tokens, table.gap_ms / 1000), hot, front.on_news, front.on_done)
        sets = Sets(directory / "settings", settings)
        sets.default()
        answers = Answers(name, front.answer)
        turns = Turns(store, sets, runtime, hot, front.batch.submit, answers)
        prober = Prober(runtime, table.runtime, store, turns, vocabulary_of(runtime))
        adoption = Adoption(store, runtime, table.runtime)
        front.service = Service(store, sets, turns, answers, adoption, prober)
        front.hot_bytes = lambda: hot.bytes
        front.batch.start()
        try:
            front.run()
        finally:
            front.batch.stop()
            front.service.close()


def _plan(configured: Configuration, table: ModelTable, index: int) -> base.Plan:
    device = table.devices[index % len(table.devices)]
    if not table.path:
        raise BadRequest(f"model {table.name!r} has no path")
    path = Path(table.path) if table.path.startswith("@") else configured.path(table.path)
    return base.Plan(
        path,
        table.slots,
        device,
        table.dtype,
        table.prefill_dtype,
        table.quantize,
        table.threads,
        table.n_threads or _threads(configured) if table.runtime == "llama" else table.n_threads,
        table.n_batch,
        table.n_ctx,
        table.n_gpu_layers,
        table.scan,
        table.pos_mode,
        configured.home / ".cache",
        configured.store(table) / FOLDER,
    )


def _threads(configured: Configuration) -> int:
    """The processors of this machine, shared among the workers that compute with llama.cpp."""
    workers = sum(table.workers for table in configured.tables.model if table.runtime == "llama")
    return max(1, (os.cpu_count() or 1) // max(1, workers))
