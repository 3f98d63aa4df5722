"""Decoding through broker, worker and blocking client against the plainest loop over the same weights.

Both read one token, then write greedily; the served side streams, each context to a thread of one client. The two
never run at the same time, and torch has one thread in each, so that the broker and the client have the other core.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

from benchmarks import weights
from benchmarks.measure import Figure, Plan, figure, interleave, spread
from benchmarks.serving import Companion, Serving
from clients import Client

GROUP = "decode"
MODEL = "model"
MINI = "mini"
THREADS = 1
CONTEXTS = (1, 2, 4, 8)
LETTERS = "abcdefgh"
GREEDY = {"temp": 0.0}


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens a second over all contexts, and what was written."""

    rate: float
    texts: list[str]


def measure(plan: Plan) -> list[Figure]:
    figures = _model(plan, MINI, weights.endless_mini(plan.scratch / "mini.safetensors"), plan.size(64, 128))
    if not plan.quick:
        figures += _model(plan, "0.1B", weights.random_01b(plan.scratch / "01b.safetensors"), 24)
    return figures


def _model(plan: Plan, name: str, path: Path, tokens: int) -> list[Figure]:
    plan.say(f"decode: {name}, {tokens} tokens at {', '.join(map(str, CONTEXTS))} contexts")
    table = {
        "name": MODEL,
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
        sides: dict[str, Callable[[], Taken]] = {}
        for count in CONTEXTS:
            sides[f"bare {count}"] = partial(_bare, bare, count, tokens)
            sides[f"served {count}"] = partial(_served, client, count, tokens)
        for side in (sides["bare 1"], sides["served 1"]):
            side()
        taken = interleave(plan.rounds, sides)
        bandwidth = bare.tell(do="bandwidth")
    if name == MINI:  # its weights stay in the cache
        return _figures(name, taken, "", "")
    limit = (
        f"{bandwidth['token_bytes'] / 1e6:.0f} MB a step at {bandwidth['bytes_per_s'] / 1e9:.1f} GB/s: "
        f"{bandwidth['bytes_per_s'] / bandwidth['token_bytes']:,.0f} steps/s"
    )
    return _figures(name, taken, "at least 0.95", limit)


def _bare(bare: Companion, count: int, tokens: int) -> Taken:
    done = bare.tell(do="decode", prompts=list(LETTERS[:count]), tokens=tokens)
    return Taken(count * tokens / done["seconds"], done["texts"])


def _served(client: Client, count: int, tokens: int) -> Taken:
    """The rate from the first request until the last answer. Raises RuntimeError for a reply of another length."""
    texts = [""] * count
    lengths = [0] * count

    def run(row: int) -> None:
        with client.stream(LETTERS[row], model=MODEL, max_tokens=tokens, values=GREEDY) as stream:
            texts[row] = "".join(stream)
            lengths[row] = stream.reply.result.reply_tokens

    threads = [threading.Thread(target=run, args=(row,)) for row in range(count)]
    began = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = perf_counter() - began
    if set(lengths) != {tokens}:
        raise RuntimeError(f"replies of {lengths} tokens, where each should have {tokens}")
    return Taken(count * tokens / seconds, texts)


def _figures(name: str, taken: dict[str, list[Taken]], target: str, limit: str) -> list[Figure]:
    def rates(side: str) -> list[float]:
        return [one.rate for one in taken[side]]

    def same(count: int) -> str:
        pairs = zip(taken[f"served {count}"], taken[f"bare {count}"], strict=True)
        return "same text" if all(ours.texts == theirs.texts for ours, theirs in pairs) else "other text"

    figures = []
    for count in CONTEXTS:
        what = f"{name}, {count} context{'s' * (count > 1)}"
        bound = limit if count == 1 else ""
        served = (f"served, {same(count)}", rates(f"served {count}"))
        bare = ("bare", rates(f"bare {count}"))
        figures.append(figure(GROUP, what, "tokens/s", served, bare, target=target, limit=bound))
    for count in CONTEXTS[1:]:
        gain = spread([many / one for many, one in zip(rates(f"bare {count}"), rates("bare 1"), strict=True)])
        served = (f"{count} contexts", rates(f"served {count}"))
        one = ("1 context", rates("served 1"))
        bound = f"the bare model's own: {gain.median:.2f}"
        figures.append(figure(GROUP, f"{name}, {count} against 1", "tokens/s", served, one, limit=bound))
    return figures
