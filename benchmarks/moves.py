"""Moving a context between two workers on the same host, until it is in memory there and pinned."""

from __future__ import annotations

import hashlib
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks import weights
from benchmarks.measure import Curve, Figure, Plan, at_most, figure, interleave
from benchmarks.serving import Serving
from benchmarks.streams import GREEDY, MODEL
from clients import Client

GROUP = "move"
ALLOWED_MS = 5.0
"""The time allowed for client, broker and the commit of the pin, in addition to copy and hash."""


def measure(plan: Plan) -> list[Figure | Curve]:
    figures: list[Figure | Curve] = [_moved(plan, "mini", weights.endless_mini(plan.scratch / "move-mini.safetensors"))]
    if not plan.quick:
        figures.append(_moved(plan, "0.1B", weights.random_01b(plan.scratch / "move-01b.safetensors")))
    return figures


def _moved(plan: Plan, name: str, path: Path) -> Figure:
    count = plan.size(2, 5)
    plan.say(f"move: contexts of {name} between two workers")
    table = {"name": MODEL, "runtime": "rwkv", "path": str(path), "checkpoints": "store", "workers": 2, "threads": 1}
    with Serving(plan.scratch / f"move-{name}", table) as serving, Client(serving.endpoint) as client:
        names = _prepared(client, count * (plan.rounds + 1))
        for warm in itertools.islice(names, count):
            client.move(warm, f"{MODEL}/1")
        size = client.show(warm).row.bytes
        sides = {
            "move": lambda: statistics.median(_move_ms(client, next(names)) for _ in range(count)),
            "copy": lambda: statistics.median(_copy_and_hash_ms(size) for _ in range(count)) + ALLOWED_MS,
        }
        taken = interleave(plan.rounds, sides)
    bound = f"one copy and one SHA-256 of {size / 1e6:.3g} MB, and {ALLOWED_MS:g} ms"
    return figure(
        GROUP, f"move of a context, {name}", "ms", ("move", taken["move"]), (bound, taken["copy"]), target=at_most(1)
    )


def _prepared(client: Client, count: int) -> Iterator[str]:
    """This many contexts with different states, in the memory of the first worker only."""
    client.turn("x", model=MODEL, save="seed", max_tokens=0, values=GREEDY)
    names = [f"context-{number}" for number in range(count)]
    client.fork("seed", names, on=[f"{MODEL}/0"] * count)
    for number, name in enumerate(names):
        client.turn(f"{number}", context=name, save=name, max_tokens=0, values=GREEDY)
    return iter(names)


def _move_ms(client: Client, name: str) -> float:
    """Move a context. Raises RuntimeError if it is not in the other worker's memory afterwards."""
    began = time.perf_counter()
    client.move(name, f"{MODEL}/1")
    took = 1000 * (time.perf_counter() - began)
    found = client.turn("", context=name, max_tokens=1, values=GREEDY).result
    if (found.worker, found.restored) != (f"{MODEL}/1", "hot"):
        raise RuntimeError(f"{name} was moved, and its turn was {found}")
    return took


def _copy_and_hash_ms(size: int) -> float:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    began = time.perf_counter()
    np.copyto(target, source)
    hashlib.sha256(target.data).digest()
    return 1000 * (time.perf_counter() - began)
