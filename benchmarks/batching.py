"""Continuous batching: how a long prompt delays other streams, what shared prompts save, and the scheduler's overhead.

Torch has one thread, so the broker and the client can use the other core. No prompt is used twice unless that is
measured, because its state would be in memory.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter

from benchmarks import streams, weights
from benchmarks.measure import Curve, Figure, Plan, at_most, figure, interleave
from benchmarks.serving import Companion, Serving
from clients import Client

GROUP = "batching"
MINI, LARGE = "mini", "0.1B"
THREADS = 1
ROUNDS = 5
SLOTS = 8
GAP_MS = 200.0
"""The default value of `gap_ms`."""

WORD = {MINI: "e", LARGE: " the"}
"""One token of each model."""

DEFAULT = {"temp": 0.7, "top_p": 0.95, "top_k": 40, "pen_freq": 0.2, "pen_pres": 0.1, "pen_rep": 1.1}
"""The default sampling set of RWKV-7 models."""

ENDLESS = {**streams.GREEDY, "max": 1 << 20}


def measure(plan: Plan) -> list[Figure | Curve]:
    path = weights.endless_mini(plan.scratch / "mini.safetensors")
    figures = [*_model(plan, MINI, path), *_overhead(plan, MINI, path)]
    if not plan.quick:
        path = weights.random_01b(plan.scratch / "01b.safetensors")
        figures += [*_model(plan, LARGE, path), *_overhead(plan, LARGE, path)]
    return [*figures]


def _model(plan: Plan, name: str, path: Path) -> list[Figure]:
    table = {
        "name": streams.MODEL,
        "runtime": "rwkv",
        "path": str(path),
        "checkpoints": "store",
        "threads": THREADS,
        "slots": SLOTS,
        "gap_ms": GAP_MS,
    }
    rounds = min(plan.rounds, ROUNDS)
    with (
        Serving(plan.scratch / f"batching-{name}", table) as serving,
        Client(serving.endpoint) as client,
        Client(serving.endpoint) as other,
    ):
        served = _Served(client, other, WORD[name])
        served.read(100)
        return [
            *_gaps(plan, name, served, rounds),
            *_shared(plan, name, served, rounds),
            *_fairness(plan, name, served, rounds),
        ]


class _Served:
    """Runs turns of two clients on one model."""

    def __init__(self, client: Client, other: Client, word: str) -> None:
        self._client = client
        self._other = other
        self._word = word
        self._fresh = iter(range(1, 1_000_000))

    def prompt(self, tokens: int) -> str:
        """A new prompt of about this many tokens."""
        return f"{next(self._fresh)}:" + self._word * tokens

    def read(self, tokens: int) -> float:
        """Seconds from sending a new prompt to the first token."""
        return self.first(self.prompt(tokens))

    def first(self, prompt: str, *, other: bool = False) -> float:
        began = perf_counter()
        client = self._other if other else self._client
        client.turn(prompt, model=streams.MODEL, max_tokens=1, values=streams.GREEDY)
        return perf_counter() - began

    def all_first(self, prompts: list[str]) -> float:
        """Seconds until all of these turns, started together, have their first token."""
        began = perf_counter()
        with ThreadPoolExecutor(len(prompts)) as pool:
            list(pool.map(self.first, prompts))
        return perf_counter() - began

    def write(self, pieces: list[float], ended: threading.Event) -> None:
        """Stream until the event, and record when each piece arrived."""
        with self._other.stream(
            self.prompt(4), model=streams.MODEL, max_tokens=1_000_000, values=ENDLESS, ttl_s=600
        ) as stream:
            for _ in stream:
                pieces.append(perf_counter())
                if ended.is_set():
                    break


# -- a long prompt beside a stream


def _gaps(plan: Plan, name: str, served: _Served, rounds: int) -> list[Figure]:
    tokens = plan.size(500, 4000)
    alone = plan.size(10, 40)
    plan.say(f"batching: {name}, a stream beside a prompt of {tokens:,} tokens")

    def beside() -> tuple[float, float, float]:
        """The stream's median gap alone, its worst gap during the prefill, and the prefill's time, in seconds."""
        pieces: list[float] = []
        ended = threading.Event()
        writer = threading.Thread(target=served.write, args=(pieces, ended))
        writer.start()
        try:
            while len(pieces) < alone and writer.is_alive():
                ended.wait(0.001)
            before = len(pieces)
            took = served.read(tokens)
        finally:
            ended.set()
            writer.join()
        gaps = [later - earlier for earlier, later in pairwise(pieces)]
        return statistics.median(gaps[: before - 1]), max(gaps[before - 1 :]), took

    sides: dict[str, Callable[[], tuple[float, float, float]]] = {
        "beside": beside,
        "alone": lambda: (0.0, 0.0, served.read(tokens)),
    }
    taken = interleave(rounds, sides)
    usual, worst = ([one[n] * 1e3 for one in taken["beside"]] for n in (0, 1))
    what = f"worst gap of a stream while {tokens:,} tokens are read, {name}"
    reading = [("beside a stream", taken["beside"]), ("alone", taken["alone"])]
    slower, faster = ((label, [one[2] for one in values]) for label, values in reading)
    return [
        figure(GROUP, what, "ms", ("worst gap", worst), ("bound", [GAP_MS] * rounds), target=at_most(1)),
        figure(GROUP, what, "ms", ("worst gap", worst), ("median gap without the reader", usual)),
        figure(GROUP, f"reading {tokens:,} tokens to the first token, {name}", "s", slower, faster),
    ]


# -- prompts with a common beginning


def _shared(plan: Plan, name: str, served: _Served, rounds: int) -> list[Figure]:
    tokens = plan.size(200, 1000) if name == MINI else 500
    plan.say(f"batching: {name}, {SLOTS} turns that share a prompt of {tokens:,} tokens")
    taken: dict[str, list[float]] = {side: [] for side in ("one", "again", "shared", "different")}
    for _ in range(rounds):
        prompt = served.prompt(tokens)
        taken["one"].append(served.first(prompt))
        taken["again"].append(served.first(prompt))
        taken["shared"].append(served.all_first([served.prompt(tokens)] * SLOTS))
        taken["different"].append(served.all_first([served.prompt(tokens) for _ in range(SLOTS)]))
    what = f"a prompt of {tokens:,} tokens"
    shared = (f"{SLOTS} turns that share it", taken["shared"])
    different = (f"{SLOTS} turns with one each", taken["different"])
    single, again = ("one turn", taken["one"]), ("the same again", taken["again"])
    return [
        figure(GROUP, f"{what}, {name}", "s", shared, single, target=at_most(1.5)),
        figure(GROUP, f"{what}, {name}", "s", shared, different),
        figure(GROUP, f"{what} again, such as a reroll, {name}", "s", again, single),
    ]


# -- two clients


def _fairness(plan: Plan, name: str, served: _Served, rounds: int) -> list[Figure]:
    """How long one turn waits for its first token while seven turns of another client are in prefill."""
    tokens = plan.size(200, 1000) if name == MINI else 200
    plan.say(f"batching: {name}, one turn beside seven of another client")

    def crowded() -> float:
        many = [threading.Thread(target=served.read, args=(tokens,)) for _ in range(SLOTS - 1)]
        for thread in many:
            thread.start()
        took = served.first(served.prompt(tokens), other=True)
        for thread in many:
            thread.join()
        return took

    taken = interleave(rounds, {"beside": crowded, "alone": lambda: served.read(tokens)})
    beside, alone = ((label, taken[side]) for label, side in (("beside seven turns", "beside"), ("alone", "alone")))
    what = f"first token of one client's turn of {tokens:,} tokens beside {SLOTS - 1} of another, {name}"
    return [figure(GROUP, what, "s", beside, alone, limit="2 when two clients get equal parts")]


# -- the scheduler


def _overhead(plan: Plan, name: str, path: Path) -> list[Figure]:
    tokens = 24
    plan.say(f"batching: {name}, the scheduler's part of a step at {SLOTS} contexts")
    prompts = list(streams.LETTERS[:SLOTS])
    kinds = {"greedy": streams.GREEDY, "with the default sampling": DEFAULT}
    with closing(Companion("scheduler", str(path), str(THREADS), str(SLOTS))) as process:
        sides = {
            kind: partial(process.tell, do="run", prompts=prompts, tokens=tokens, settings=settings)
            for kind, settings in kinds.items()
        }
        taken = interleave(min(plan.rounds, ROUNDS), sides)
    found = []
    for kind in kinds:
        outside, step = ([1e3 * one[key] for one in taken[kind]] for key in ("outside", "step"))
        what = f"scheduling of a step at {SLOTS} contexts, {kind}, {name}"
        ours = ("outside the model", outside)
        target = at_most(0.05) if name == LARGE else None
        found.append(figure(GROUP, what, "ms", ours, ("step", step), target=target))
    return found
