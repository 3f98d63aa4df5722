"""Memory over many turns: compares what a worker and the broker use after all turns and after the first ones.

Each turn reads a letter, writes two tokens and saves, on one context after the other. The worker may keep `HOT_MIB` of
states in memory. That is a fraction of all contexts, so states are evicted from early on. gc runs each time all
contexts have had a turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import weights
from benchmarks.measure import Curve, Figure, Plan, at_most, curve, figure
from benchmarks.serving import Serving
from benchmarks.streams import GREEDY, MODEL
from clients import Client

GROUP = "endurance"
CLIENTS = 8
HOT_MIB = 64
QUICK_HOT_MIB = 2
READINGS = 5
"""Memory readings at the beginning and at the end, which are the rounds of the figures."""

MIB = 1 << 20
WORKER, BROKER, HOT = "worker", "broker", "states in memory"
ANSWERS = "answers are kept for 300 s, within 64 MiB"
"""Why the broker's memory grows: its default cache of answers."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory use in bytes by holder, after this many turns."""

    turns: int
    bytes: dict[str, int]


def measure(plan: Plan) -> list[Figure | Curve]:
    turns, contexts, block = plan.size(200, 10_000), plan.size(20, 1_000), plan.size(10, 100)
    hot = plan.size(QUICK_HOT_MIB, HOT_MIB)
    path = weights.endless_mini(plan.scratch / "endurance.safetensors")
    table = {
        "name": MODEL,
        "runtime": "rwkv",
        "path": str(path),
        "checkpoints": "store",
        "slots": CLIENTS,
        "threads": 1,
        "hot_bytes": f"{hot} MiB",
        "keep_steps": 2,
    }
    plan.say(f"endurance: {turns:,} turns on {contexts:,} contexts")
    with Serving(plan.scratch / "endurance", table) as serving, Client(serving.endpoint) as client:
        readings = list(_turns(plan, client, serving.pids, turns, contexts, block))
    figures: list[Figure | Curve] = []
    # The first turn of a context loads nothing. From the second turn on, states are also loaded from disk.
    for before in (contexts, 2 * contexts):
        after = [reading for reading in readings if reading.turns <= before][-READINGS:]
        end = readings[-len(after) :]
        for who, kind in itertools.product((WORKER, BROKER), ("RSS", "PSS")):
            figures.append(
                figure(
                    GROUP,
                    f"{kind} of the {who} after {turns:,} turns on {contexts:,} contexts",
                    "MiB",
                    (f"{turns:,} turns", _mib(end, f"{who}, {kind}")),
                    (f"{before:,} turns", _mib(after, f"{who}, {kind}")),
                    target=at_most(1.05) if (who, kind) == (WORKER, "RSS") else None,
                    limit=ANSWERS if who == BROKER else "",
                )
            )
    budget = [float(hot)] * len(end)
    figures.append(
        figure(
            GROUP, "states in memory at the end", "MiB", (HOT, _mib(end, HOT)), ("budget", budget), target=at_most(1)
        )
    )
    lines = {what: {float(reading.turns): [reading.bytes[what] / MIB] for reading in readings} for what in end[0].bytes}
    figures.append(curve(GROUP, "memory over turns", x="turns", y="MiB", lines=lines))
    return figures


def _turns(
    plan: Plan, client: Client, pids: dict[str, int], turns: int, contexts: int, block: int
) -> Iterator[Reading]:
    """Run turns in parallel blocks on different contexts, and read the memory between two blocks."""

    def one(number: int) -> None:
        name = f"context/{number % contexts}"
        reply = client.turn("x", context=name, create=True, save=name, max_tokens=2, values=GREEDY)
        if reply.result.reply_tokens != 2:
            raise RuntimeError(f"a turn of two tokens was {reply.result}")

    with ThreadPoolExecutor(CLIENTS) as pool:
        for start in range(0, turns, block):
            list(pool.map(one, range(start, start + block)))
            done = start + block
            if done % contexts == 0:
                client.gc(model=MODEL)
            if done % (10 * block) == 0:
                plan.say(f"endurance: {done:,} turns")
            yield Reading(done, _memory(client, pids))


def _memory(client: Client, pids: dict[str, int]) -> dict[str, int]:
    found = {}
    for who, process in ((WORKER, f"{MODEL}/0"), (BROKER, "broker")):
        for kind, size in _rollup(pids[process]).items():
            found[f"{who}, {kind}"] = size
    found[HOT] = client.status().workers[0].hot_bytes
    return found


def _rollup(pid: int) -> dict[str, int]:
    """The resident memory of a process as reported by Linux. Its PSS counts shared pages in part."""
    rows = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:])
    return {row[0][:-1].upper(): int(row[1]) << 10 for row in rows if row[0] in ("Rss:", "Pss:")}


def _mib(readings: list[Reading], what: str) -> list[float]:
    return [reading.bytes[what] / MIB for reading in readings]
