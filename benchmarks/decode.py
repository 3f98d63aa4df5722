"""Decoding through broker, worker and blocking client against the simplest loop over the same weights.

Torch has one thread on both sides, so the broker and the client can use the other core.
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
FEW = (1, 2, 4, 8)
MANY = (16, 32, 64)
MANY_ROUNDS = 5
"""Rounds of slow measurements."""


def measure(plan: Plan) -> list[Figure | Curve]:
    figures = _model(plan, MINI, weights.endless_mini(plan.scratch / "mini.safetensors"), plan.size(32, 128))
    if not plan.quick:
        figures += _model(plan, "0.1B", weights.random_01b(plan.scratch / "01b.safetensors"), 24)
    return figures


def _model(plan: Plan, name: str, path: Path, tokens: int) -> list[Figure | Curve]:
    plan.say(f"decode: {name}, {tokens} tokens at {', '.join(map(str, FEW))} contexts, {tokens // 2} at more")
    table = {
        "name": streams.MODEL,
        "runtime": "rwkv",
        "path": str(path),
        "checkpoints": "store",
        "threads": THREADS,
        "slots": max(MANY),
    }
    with (
        Serving(plan.scratch / f"decode-{name}", table) as serving,
        closing(Companion("bare", str(path), str(THREADS))) as bare,
        Client(serving.endpoint) as client,
    ):
        few, many = streams.sides(client, bare, FEW, tokens), streams.sides(client, bare, MANY, tokens // 2)
        for side in (few["bare 1"], few["served 1"]):
            side()
        taken = interleave(plan.rounds, few) | interleave(min(plan.rounds, MANY_ROUNDS), many)
        bandwidth = bare.tell(do="bandwidth")
    curve = streams.scale(GROUP, name, (*FEW, *MANY), taken)
    if name == MINI:  # its weights stay in the CPU cache
        return [*streams.figures(GROUP, name, FEW, taken), curve]
    limit = (
        f"{bandwidth['token_bytes'] / 1e6:.0f} MB a step at {bandwidth['bytes_per_s'] / 1e9:.1f} GB/s: "
        f"{bandwidth['bytes_per_s'] / bandwidth['token_bytes']:,.0f} steps/s"
    )
    bound = at_least(0.95)
    return [*streams.figures(GROUP, name, FEW, taken, target=bound, gain=bound, limit=limit), curve]
