"""One to four workers of one model: decoding contexts, short turns, and turns that save into their shared store.

Every worker computes with one thread. The decoding workers are compared with the same number of bare loops over the
same weights, each in a separate process with its share of the contexts. The number of used cores shows whether a lack
of cores bends the curves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

from benchmarks import weights
from benchmarks.measure import Curve, Figure, Plan, cpu_s, curve, figure, interleave
from benchmarks.serving import Companion, Serving
from benchmarks.streams import GREEDY, LETTERS
from clients import Client

GROUP = "fleet"
WORKERS = (1, 2, 3, 4)
CONTEXTS = 8
ROUNDS = 5
CLIENTS, THREADS = 2, 8
"""Client processes that ask for short turns, and the threads of each."""

SCRIPT = '{"replies": [{"after": "", "pieces": ["y"]}]}'
TURNS, SAVES = "turns", "saving turns"


@dataclass(frozen=True, slots=True)
class Taken:
    """The rate of a round, and the number of cores used by the broker, the workers and the clients."""

    rate: float
    broker: float = 0.0
    workers: float = 0.0
    clients: float = 0.0


def measure(plan: Plan) -> list[Figure | Curve]:
    """Serve all models at once. Only the workers of the measured model are busy."""
    path = weights.endless_mini(plan.scratch / "fleet.safetensors")
    script = plan.scratch / "script.json"
    script.write_text(SCRIPT, encoding="utf-8")
    tokens, turns, rounds = plan.size(16, 128), plan.size(4, 30), min(plan.rounds, ROUNDS)
    counts = WORKERS[: plan.size(2, len(WORKERS))]
    plan.say(f"{GROUP}: {CONTEXTS} contexts of {tokens} tokens, and short turns, on 1 to {counts[-1]} workers")
    tables = [table for count in counts for table in _tables(path, script, count)]
    with ExitStack() as stack:
        serving = stack.enter_context(Serving(plan.scratch / GROUP, *tables))
        client = stack.enter_context(Client(serving.endpoint))
        bare = [stack.enter_context(closing(Companion("bare", str(path), "1"))) for _ in counts]
        askers = [
            stack.enter_context(closing(Companion("fleet_client", serving.endpoint, str(THREADS))))
            for _ in range(CLIENTS)
        ]
        sides: dict[str, Callable[[], Taken]] = {}
        for count in counts:
            sides[f"bare {count}"] = partial(_bare, bare[:count], tokens)
            sides[f"served {count}"] = partial(_served, serving, client, count, tokens)
            for what in (TURNS, SAVES):
                sides[f"{what} {count}"] = partial(_asked, serving, askers, count, turns, what == SAVES)
        for side in sides.values():
            side()
        taken = interleave(rounds, sides)
    return [*_figures(counts, taken), *_curves(counts, taken)]


def _tables(path: Path, script: Path, count: int) -> list[dict[str, object]]:
    """The two models with this many workers."""
    common = {"workers": count, "slots": CONTEXTS, "hot_bytes": "64 MiB"}
    mini = {"name": f"mini-{count}", "runtime": "rwkv", "path": str(path), "threads": 1}
    scripted = {"name": f"scripted-{count}", "runtime": "scripted", "path": str(script)}
    return [{**model, "checkpoints": str(model["name"]), **common} for model in (mini, scripted)]


def _bare(companions: Sequence[Companion], tokens: int) -> Taken:
    """Run the bare loops at the same time, each with its share of the contexts."""
    shares = [list(LETTERS[row : CONTEXTS : len(companions)]) for row in range(len(companions))]
    seconds = _at_once(
        [
            partial(companion.tell, do="decode", prompts=share, tokens=tokens)
            for companion, share in zip(companions, shares, strict=True)
        ]
    )
    return Taken(CONTEXTS * tokens / seconds)


def _served(serving: Serving, client: Client, count: int, tokens: int) -> Taken:
    """Stream all contexts at the same time. Raises RuntimeError if a reply has the wrong length."""

    def run(letter: str) -> None:
        with client.stream(letter, model=f"mini-{count}", max_tokens=tokens, values=GREEDY) as stream:
            for _ in stream:
                pass
            if (found := stream.reply.result.reply_tokens) != tokens:
                raise RuntimeError(f"a reply has {found} tokens instead of {tokens}")

    def ask() -> float:
        return _at_once([partial(run, letter) for letter in LETTERS[:CONTEXTS]])

    return _watched(serving, f"mini-{count}/", CONTEXTS * tokens, process_time, ask)


def _asked(serving: Serving, askers: Sequence[Companion], count: int, turns: int, save: bool) -> Taken:
    """Run turns of one token from the threads of several processes."""
    tell = [partial(asker.tell, do="turns", model=f"scripted-{count}", turns=turns, save=save) for asker in askers]

    def clock() -> float:
        return sum(cpu_s(asker.pid) for asker in askers)

    return _watched(serving, f"scripted-{count}/", CLIENTS * THREADS * turns, clock, lambda: _at_once(tell))


def _watched(
    serving: Serving, workers: str, count: int, clients_s: Callable[[], float], ask: Callable[[], float]
) -> Taken:
    """The rate of `count` things in the seconds that `ask` returns, and the CPU use of each part during it."""
    pids = [pid for name, pid in serving.pids.items() if name.startswith(workers)]

    def clocks() -> tuple[float, float, float]:
        return cpu_s(serving.pids["broker"]), sum(map(cpu_s, pids)), clients_s()

    before = clocks()
    seconds = ask()
    return Taken(count / seconds, *((b - a) / seconds for a, b in zip(before, clocks(), strict=True)))


def _at_once(actions: Sequence[Callable[[], object]]) -> float:
    """Run each action in a thread. Returns the seconds until all are done; raises the first error."""
    raised: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    if raised:
        raise raised[0]
    return seconds


def _figures(counts: Sequence[int], taken: dict[str, list[Taken]]) -> list[Figure]:
    def rates(side: str) -> list[float]:
        return [one.rate for one in taken[side]]

    found = [
        figure(
            GROUP,
            f"mini, {CONTEXTS} contexts on {count} worker{'s' * (count > 1)}",
            "tokens/s",
            ("served", rates(f"served {count}")),
            (f"bare, {count} process{'es' * (count > 1)}", rates(f"bare {count}")),
        )
        for count in counts
    ]
    for what in (TURNS, SAVES):
        one = ("1 worker", rates(f"{what} 1"))
        for count in counts[1:]:
            name = f"{what} on {count} workers against 1"
            found.append(figure(GROUP, name, "turns/s", (f"{count} workers", rates(f"{what} {count}")), one))
    return found


def _curves(counts: Sequence[int], taken: dict[str, list[Taken]]) -> list[Curve]:
    def line(side: str, value: Callable[[Taken], float] = lambda one: one.rate) -> dict[float, Sequence[float]]:
        return {count: [value(one) for one in taken[f"{side} {count}"]] for count in counts}

    drawn = [
        curve(
            GROUP,
            f"mini, {CONTEXTS} contexts",
            x="workers",
            y="tokens/s",
            lines={"served": line("served"), "bare": line("bare")},
        ),
        curve(GROUP, TURNS, x="workers", y="turns/s", lines={what: line(what) for what in (TURNS, SAVES)}),
    ]
    for side, what in (("served", "decoding"), (TURNS, TURNS), (SAVES, SAVES)):
        cores = {
            "broker": line(side, lambda one: one.broker),
            "workers": line(side, lambda one: one.workers),
            "clients": line(side, lambda one: one.clients),
        }
        drawn.append(curve(GROUP, f"cores used, {what}", x="workers", y="cores", lines=cores))
    return drawn
