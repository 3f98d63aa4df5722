"""Forks of a context in memory: the time of the rwkv runtime against copying the same number of bytes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from benchmarks import weights
from benchmarks.measure import Bound, Curve, Figure, Plan, at_most, figure
from benchmarks.serving import Companion

GROUP = "forks"


def measure(plan: Plan) -> list[Figure | Curve]:
    figures = _model(plan, "mini", weights.endless_mini(plan.scratch / "mini.safetensors"))
    if not plan.quick:
        figures += _model(plan, "0.1B", weights.random_01b(plan.scratch / "01b.safetensors"))
    return figures


def _model(plan: Plan, name: str, path: Path) -> list[Figure | Curve]:
    plan.say(f"forks: {name}")
    with closing(Companion("bare", str(path), "1")) as bare:
        taken = [bare.tell(do="fork", count=plan.size(64, 320)) for _ in range(plan.rounds)]

    def against(what: str, ours: str, theirs: str, target: Bound | None = None) -> Figure:
        a, b = ([1e6 * one[side] for one in taken] for side in (ours, theirs))
        return figure(GROUP, f"{what}, {name}", "µs", (ours, a), ("memcpy", b), target=target)

    return [
        against("fork into a slot", "load", "copy", at_most(2)),
        against("32 forks of one context", "loads", "copies", at_most(1)),
        against("a slot's state taken out", "save", "fresh"),
    ]
