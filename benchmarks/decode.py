"""Decoding through broker, worker and blocking client against the plainest loop over the same weights.

Torch has one thread on both sides, so that the broker and the client have the other core.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from benchmarks import streams, weights
from benchmarks.measure import Curve, Figure, Plan, at_least, interleave
from benchmarks.serving import Companion, Serving
from clients import Client

GROUP = "decode"
MINI = "mini"
THREADS = 1
CONTEXTS = (1, 2, 4, 8)


def measure(plan: Plan) -> list[Figure | Curve]:
    figures: list[Figure | Curve] = [
        *_model(plan, MINI, weights.endless_mini(plan.scratch / "mini.safetensors"), plan.size(64, 128))
    ]
    if not plan.quick:
        figures += _model(plan, "0.1B", weights.random_01b(plan.scratch / "01b.safetensors"), 24)
    return figures


def _model(plan: Plan, name: str, path: Path, tokens: int) -> list[Figure]:
    plan.say(f"decode: {name}, {tokens} tokens at {', '.join(map(str, CONTEXTS))} contexts")
    table = {
        "name": streams.MODEL,
        "runtime": "rwkv",
        "path": str(path),
        "checkpoints": "store",
        "threads": THREADS,
        "slots": max(CONTEXTS),
    }
    with (
        Serving(plan.scratch / f"decode-{name}", table) as serving,
        closing(Companion("bare", str(path), str(THREADS))) as bare,
        Client(serving.endpoint) as client,
    ):
        sides = streams.sides(client, bare, CONTEXTS, tokens)
        for side in (sides["bare 1"], sides["served 1"]):
            side()
        taken = interleave(plan.rounds, sides)
        bandwidth = bare.tell(do="bandwidth")
    if name == MINI:  # its weights stay in the cache
        return streams.figures(GROUP, name, CONTEXTS, taken)
    limit = (
        f"{bandwidth['token_bytes'] / 1e6:.0f} MB a step at {bandwidth['bytes_per_s'] / 1e9:.1f} GB/s: "
        f"{bandwidth['bytes_per_s'] / bandwidth['token_bytes']:,.0f} steps/s"
    )
    return streams.figures(GROUP, name, CONTEXTS, taken, target=at_least(0.95), limit=limit)
