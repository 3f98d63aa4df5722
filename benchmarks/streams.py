"""Contexts that write side by side: streamed through the broker, and by a bare model over the same weights.

Both read one token, then write greedily; the served side streams, each context to a thread of one client. The two
never run at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from benchmarks.measure import Bound, Figure, figure, spread
from benchmarks.serving import Companion
from clients import Client

MODEL = "model"
"""The name under which the model is served."""

LETTERS = "abcdefghijklmnop"
"""A prompt for each context, of one token in every vocabulary."""

GREEDY = {"temp": 0.0, "pen_freq": 0.0, "pen_pres": 0.0, "pen_rep": 1.0}
"""Whatever the served model's sampling set says: the other side has no penalties."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens a second over all contexts, and what was written."""

    rate: float
    texts: list[str]


def sides(client: Client, bare: Companion, counts: Sequence[int], tokens: int) -> dict[str, Callable[[], Taken]]:
    """Served and bare at each number of contexts, each writing so many tokens."""
    found: dict[str, Callable[[], Taken]] = {}
    for count in counts:
        found[f"bare {count}"] = partial(_bare, bare, count, tokens)
        found[f"served {count}"] = partial(_served, client, count, tokens)
    return found


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


def figures(
    group: str,
    name: str,
    counts: Sequence[int],
    taken: dict[str, list[Taken]],
    *,
    target: Bound | None = None,
    limit: str = "",
) -> list[Figure]:
    """Served against bare at each number of contexts, then many contexts against one. `limit` is that of one."""

    def rates(side: str) -> list[float]:
        return [one.rate for one in taken[side]]

    def same(count: int) -> str:
        pairs = zip(taken[f"served {count}"], taken[f"bare {count}"], strict=True)
        return "same text" if all(ours.texts == theirs.texts for ours, theirs in pairs) else "other text"

    found = []
    for count in counts:
        what = f"{name}, {count} context{'s' * (count > 1)}"
        bound = limit if count == 1 else ""
        served = (f"served, {same(count)}", rates(f"served {count}"))
        bare = ("bare", rates(f"bare {count}"))
        found.append(figure(group, what, "tokens/s", served, bare, target=target, limit=bound))
    for count in counts[1:]:
        gain = spread([many / one for many, one in zip(rates(f"bare {count}"), rates("bare 1"), strict=True)])
        served = (f"{count} contexts", rates(f"served {count}"))
        one = ("1 context", rates("served 1"))
        bound = f"the bare model's own: {gain.median:.2f}"
        found.append(figure(group, f"{name}, {count} against 1", "tokens/s", served, one, limit=bound))
    return found
