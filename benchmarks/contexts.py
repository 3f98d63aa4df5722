"""Operations on contexts: fork, save and load against the bare disk, restore against reading the text again."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks import weights
from benchmarks.measure import Bound, Curve, Figure, Plan, at_least, at_most, figure, interleave, median_s
from benchmarks.serving import Companion, Serving
from benchmarks.shelf import Shelf
from benchmarks.streams import GREEDY
from clients import Client
from ssmprov.ops import TurnResult
from ssmprov.transcript import FENCE, header

GROUP = "contexts"
HOT, COLD = "hot", "cold"
COMMIT, WRITE, READ = "SQLite commit", "write, fsync, rename, fsync", "read and SHA-256"
LOGITS = "restore from disk to the first logits"
TOKEN = "restore from disk to the first token"
HOT_TOKEN = "restore from memory to the first token"
READINGS = 5
"""Rounds of measurements that read the whole text again."""

FORKS = 32
TOGETHER = 8
PROMPT_TOKENS = 13_000
PREFILL_CHARS = 2000
SLICE = 128
"""The default number of prompt tokens that a worker reads between two decode steps."""

MINI, LARGE = "mini", "0.1B"
SHAPES = {MINI: (5, 128, 257), LARGE: (12, 768, 65536)}
"""Layers, channels and vocabulary of the saved states."""


def measure(plan: Plan) -> list[Figure | Curve]:
    figures: list[Figure | Curve] = [*_stored(plan)]
    figures += _served(plan, MINI, weights.endless_mini(plan.scratch / "mini.safetensors"))
    if not plan.quick:
        figures += _served(plan, LARGE, weights.random_01b(plan.scratch / "01b.safetensors"))
    return figures


def _stored(plan: Plan) -> list[Figure]:
    figures = []
    for name, shape in SHAPES.items():
        plan.say(f"contexts: fork, save and load in the store, {name}")
        with closing(Shelf(plan.scratch / f"shelf-{name}-alone", *shape)) as shelf:
            actions: dict[str, Callable[[], object]] = {
                "fork": shelf.fork,
                COMMIT: shelf.commit,
                "save": shelf.save,
                WRITE: shelf.write,
                "load": shelf.load,
                READ: shelf.read,
                "forks": partial(shelf.fork, FORKS),
                "copies": partial(shelf.copy, FORKS),
                "saves": partial(shelf.save_together, TOGETHER),
                "writes": partial(shelf.write, TOGETHER),
            }
            taken = _rounds(plan, actions, plan.size(5, 20))
        figures += [
            _figure(f"durable fork in the store, {name}", taken, "fork", COMMIT, at_most(2)),
            _figure(f"save in the store, {name}", taken, "save", WRITE, at_most(2)),
            _figure(f"{TOGETHER} saves that end together, in the store, {name}", taken, "saves", "writes", at_most(2)),
            _figure(f"{FORKS} durable forks in one call against one, in the store, {name}", taken, "forks", "fork"),
            _figure(
                f"{FORKS} durable forks against {FORKS} copies of the state, {name}",
                taken,
                "forks",
                "copies",
                at_most(1) if name == LARGE else None,
            ),
            _figure(f"load in the store, {name}", taken, "load", READ),
        ]
    return figures


def _rounds(plan: Plan, actions: Mapping[str, Callable[[], object]], count: int) -> dict[str, list[float]]:
    """The median milliseconds of each action in each round."""
    return interleave(plan.rounds, {name: _median_ms(action, count) for name, action in actions.items()})


def _median_ms(action: Callable[[], object], count: int) -> Callable[[], float]:
    return lambda: 1000 * median_s(count, action)


def _figure(name: str, taken: dict[str, list[float]], ours: str, theirs: str, target: Bound | None = None) -> Figure:
    a, b = ((side, taken[side]) for side in (ours, theirs))
    return figure(GROUP, name, "ms", a, b, target=target)


# -- through the broker


def _served(plan: Plan, name: str, path: Path) -> list[Figure]:
    tokens = plan.size(1000, PROMPT_TOKENS)
    plan.say(f"contexts: fork, save and restore through the broker, {name}, a context of {tokens:,} tokens")
    common = {"runtime": "rwkv", "path": str(path), "slots": 2, "threads": 1, "slice_tokens": SLICE}
    hot = {"name": HOT, "checkpoints": "hot", **common}
    cold = {"name": COLD, "checkpoints": "cold", "hot_bytes": "1 KiB", **common}  # no state stays in memory
    with (
        Serving(plan.scratch / f"served-{name}", hot, cold) as serving,
        closing(Companion("bare", str(path), "1")) as bare,
        closing(Shelf(plan.scratch / f"shelf-{name}", *SHAPES[name])) as shelf,
        Client(serving.endpoint) as client,
    ):
        text = _transcript(bare, tokens)
        _prime(client, text, plan.scratch / f"{name}.ctx")
        again = f"read {tokens:,} tokens again"
        names = iter(range(1_000_000))
        quick = {
            "fork": lambda: client.fork("primed", [f"fork-{next(names)}"], model=HOT),
            COMMIT: shelf.commit,
            "save": lambda: _save(client, next(names)),
            WRITE: shelf.write,
        }
        short = _rounds(plan, quick, plan.size(3, 10))
        part = text[:PREFILL_CHARS]
        read = {
            "served": lambda: _first_token(client, COLD, "empty", prompt=part),
            "bare model": lambda: bare.tell(do="prefill", text=part, step=SLICE),
        }
        prefill = _rounds(plan, read, 1)
        few = plan.size(3, 10)
        restores = {
            again: _median_ms(lambda: _first_token(client, COLD, "empty", prompt=text), 1),
            LOGITS: lambda: _restore_ms(client, few),
            TOKEN: _median_ms(lambda: _first_token(client, COLD, "disk", context="primed"), few),
            HOT_TOKEN: _median_ms(lambda: _first_token(client, HOT, "hot", context="primed"), few),
        }
        restored = interleave(min(plan.rounds, READINGS), restores)
    figures = [
        _figure(f"durable fork, client to client, {name}", short, "fork", COMMIT),
        _figure(f"save of a step, client to client, {name}", short, "save", WRITE),
        _figure(f"reading {len(part):,} bytes, client to client, {name}", prefill, "served", "bare model"),
    ]
    for what in (LOGITS, TOKEN, HOT_TOKEN):
        sides = (again, restored[again]), ("restore", restored[what])
        target = at_least(1000) if what == LOGITS else None  # a token also takes a step of the model
        figures.append(figure(GROUP, f"{what}, {name}", "ms", *sides, target=target))
    return figures


def _save(client: Client, number: int) -> None:
    """Run a turn that reads one token and saves. Its seed makes the checkpoint a new one."""
    client.turn("x", model=HOT, context="primed", save=f"save-{number}", max_tokens=0, seed=number)


def _restore_ms(client: Client, count: int) -> float:
    """The median time until the worker has a context's logits from its file, by the worker's clock."""
    return statistics.median(_first_token(client, COLD, "disk", context="primed").restore_ms for _ in range(count))


def _prime(client: Client, text: str, file: Path) -> None:
    """Let one model read a text, and copy the context to the other one with a file."""
    client.turn(text, model=HOT, save="primed", max_tokens=0)
    client.export("primed", file, model=HOT)
    client.import_(file, "primed", model=COLD)


def _first_token(client: Client, model: str, restored: str, *, prompt: str = "", context: str = "") -> TurnResult:
    """Run a turn of one token. Raises RuntimeError if its context or prompt was not restored as expected."""
    result = client.turn(prompt, model=model, context=context, max_tokens=1, values=GREEDY).result
    again = result.prefill_tokens + result.shared_tokens
    if (result.restored, again, result.reply_tokens) != (restored, 0, 1):
        raise RuntimeError(f"a turn that should start from {restored!r} was {result}")
    return result


def _transcript(bare: Companion, tokens: int) -> str:
    """A text of about this many tokens."""
    turns = [header(n, ("INTERFACE", "USER")[n % 2]) + f"line {n} of many" + FENCE for n in range(1, tokens)]
    some = "".join(turns[:100])
    size = len(some) * tokens // bare.tell(do="count", text=some)["tokens"]
    return "".join(turns)[:size].rstrip()
