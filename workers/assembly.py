"""Builds a worker: loads its model, opens its store, and connects its parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ssmprov import wire
from ssmprov.configuration import Configuration, ModelTable, parse_size
from ssmprov.errors import BadRequest
from ssmprov.keys import credentials_for
from ssmprov.names import worker_name
from ssmprov.settings import Sets
from workers import scratch
from workers.adoption import Adoption
from workers.answers import Answers, Sender
from workers.checkpoints import Store
from workers.checkpoints.weights import FOLDER
from workers.families import default_set
from workers.job import Job
from workers.prefill import Pace
from workers.probing import Prober
from workers.runtimes import base
from workers.service import Service
from workers.state_cache import StateCache
from workers.turns import Turns, vocabulary_of
from workers.worker import Place, Worker

EMBEDDED = ("@mini", "@asm-mini")


def serve(configured: Configuration, table: ModelTable, index: int, endpoint: str) -> None:
    """Load the model, register with the broker, and serve until drained."""
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
        sets = Sets(directory / "settings", settings)
        sets.default()
        cache = StateCache(parse_size(table.hot_bytes))
        card = wire.ModelCard(
            name=table.name,
            runtime=table.runtime,
            fingerprint=runtime.identity.fingerprint,
            architecture=runtime.identity.layout,
            vocabulary=runtime.vocabulary,
            state_bytes=runtime.state_bytes,
            dtype=runtime.identity.dtype,
            settings=settings,
        )

        def open_service(submit: Callable[[Job], None], answer: Sender) -> Service:
            answers = Answers(name, answer)
            turns = Turns(store, sets, runtime, cache, submit, answers)
            prober = Prober(runtime, table.runtime, store, turns, vocabulary_of(runtime))
            return Service(store, sets, turns, answers, Adoption(store, runtime, table.runtime), prober)

        Worker(
            endpoint=endpoint,
            credentials=credentials,
            place=Place(name=name, card=card, store=store.uuid, slots=runtime.slots, stall_s=table.stall_s),
            runtime=runtime,
            pace=Pace(table.slice_tokens, table.gap_ms / 1000),
            cache=cache,
            open_service=open_service,
        ).run()


def _plan(configured: Configuration, table: ModelTable, index: int) -> base.Plan:
    if not table.path:
        raise BadRequest(f"model {table.name!r} has no path: set `path` in its table")
    return base.Plan(
        path=Path(table.path) if table.path.startswith("@") else configured.path(table.path),
        slots=table.slots,
        device=table.devices[index % len(table.devices)],
        dtype=table.dtype,
        options=table.options,
        processors=_processors(configured, table.runtime),
        cache=configured.home / ".cache",
        weights=configured.store(table) / FOLDER,
    )


def _processors(configured: Configuration, runtime: str) -> int:
    """The processors of this machine, divided among the workers of this runtime."""
    workers = sum(table.workers for table in configured.tables.model if table.runtime == runtime)
    return max(1, (os.cpu_count() or 1) // max(1, workers))
