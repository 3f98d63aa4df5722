"""What the broker knows about one model."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from broker.ready import Ready
from broker.records import Worker
from ssmprov import wire


@dataclass(slots=True, kw_only=True)
class Model:
    """A served model; `hot` maps a name to the worker that held it last, and the tasks of `ready` wait for a worker.

    `moved` tells whether this broker has seen pins change.
    """

    card: wire.ModelCard
    store: str
    ready: Ready
    workers: dict[str, Worker] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    moved: bool = False
    hot: OrderedDict[str, str] = field(default_factory=OrderedDict)
    empty_at: float = 0.0
