"""The groups of figures by their `--only` name. Each is imported when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import cast

from benchmarks.measure import Curve, Figure, Plan

Measure = Callable[[Plan], list[Figure | Curve]]

GROUPS = {
    "round-trip": "benchmarks.round_trip:measure",
    "streams": "benchmarks.fanout:measure",
    "clients": "benchmarks.crowd:measure",
    "decode": "benchmarks.decode:measure",
    "batching": "benchmarks.batching:measure",
    "forks": "benchmarks.forks:measure",
    "contexts": "benchmarks.contexts:measure",
    "move": "benchmarks.moves:measure",
    "catalogue": "benchmarks.catalogue:measure",
    "endurance": "benchmarks.endurance:measure",
    "llama": "benchmarks.llama:measure",
    "llama-server": "benchmarks.llama_server:measure",
    "fleet": "benchmarks.fleet:measure",
    "composer": "benchmarks.composer:measure",
}


def load(name: str) -> Measure:
    module, _, attribute = GROUPS[name].partition(":")
    return cast(Measure, getattr(importlib.import_module(module), attribute))
