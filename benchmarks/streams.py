"""Contexts that decode at the same time: streamed through the broker, and by a bare model with the same weights.

Both read one token and then write greedily. The served side streams each context to a thread of one client. The two
sides never run at the same time.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from benchmarks.measure import Bound, Curve, Figure, curve, figure
from benchmarks.serving import Companion
from clients import Client

MODEL = "model"
"""The name of the served model."""

LETTERS = string.ascii_letters + string.digits + "+-"
"""Prompts for up to 64 contexts. Each is one token in every vocabulary."""

GREEDY = {"temp": 0.0, "pen_freq": 0.0, "pen_pres": 0.0, "pen_rep": 1.0}
"""Overrides the served model's sampling set, because the other side has no penalties."""


GAIN_AT = 8
"""The number of contexts at which the gains of the served and the bare model are compared."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens per second over all contexts, and the texts."""

    rate: float
    texts: list[str]


Rounds = Mapping[str, Sequence[Taken]]
"""The rounds of the sides `served N` and `bare N`, with N contexts."""


def sides(client: Client, bare: Companion, counts: Sequence[int], tokens: int) -> dict[str, Callable[[], Taken]]:
    """The served and the bare side for each number of contexts, each writing this many tokens."""
    found: dict[str, Callable[[], Taken]] = {}
    for count in counts:
        found[f"bare {count}"] = partial(_bare, bare, count, tokens)
        found[f"served {count}"] = partial(_served, client, count, tokens)
    return found


def _bare(bare: Companion, count: int, tokens: int) -> Taken:
    done = bare.tell(do="decode", prompts=list(LETTERS[:count]), tokens=tokens)
    return Taken(count * tokens / done["seconds"], done["texts"])


def _served(client: Client, count: int, tokens: int) -> Taken:
    """The rate from the first request to the last answer. Raises RuntimeError if a reply has the wrong length."""

    def run(letter: str) -> tuple[str, int]:
        with client.stream(letter, model=MODEL, max_tokens=tokens, values=GREEDY) as stream:
            return "".join(stream), stream.reply.result.reply_tokens

    began = perf_counter()
    with ThreadPoolExecutor(count) as pool:
        replies = list(pool.map(run, LETTERS[:count]))
    seconds = perf_counter() - began
    texts, lengths = [text for text, _ in replies], [length for _, length in replies]
    if set(lengths) != {tokens}:
        raise RuntimeError(f"replies have {lengths} tokens instead of {tokens} each")
    return Taken(count * tokens / seconds, texts)


def figures(
    group: str,
    name: str,
    counts: Sequence[int],
    taken: Rounds,
    *,
    target: Bound | None = None,
    gain: Bound | None = None,
    limit: str = "",
) -> list[Figure]:
    """Served against bare for each number of contexts, then the gain of each side over one context.

    `target` and `limit` are for one context. `gain` is the target for eight contexts: the gain of the served model
    over the gain of the bare one.
    """
    found = []
    for count in counts:
        what = f"{name}, {count} context{'s' * (count > 1)}"
        served = (f"served, {_same(taken, count)}", _rates(taken, f"served {count}"))
        bare = ("bare", _rates(taken, f"bare {count}"))
        first = count == 1
        bound, no_more = (target, limit) if first else (None, "")
        found.append(figure(group, what, "tokens/s", served, bare, target=bound, limit=no_more))
    for count in counts[1:]:
        served, bare = ((side, _gains(taken, side, count)) for side in ("served", "bare"))
        bound = gain if count == GAIN_AT else None
        found.append(figure(group, f"{name}, {count} contexts over 1", "times", served, bare, target=bound))
    return found


def scale(group: str, name: str, counts: Sequence[int], taken: Rounds) -> Curve:
    """Tokens per second of each side over the number of contexts."""
    lines = {side: {float(count): _rates(taken, f"{side} {count}") for count in counts} for side in ("served", "bare")}
    return curve(group, f"{name}: contexts that write", x="contexts", y="tokens/s", lines=lines, log_x=True, log_y=True)


def _rates(taken: Rounds, side: str) -> list[float]:
    return [one.rate for one in taken[side]]


def _gains(taken: Rounds, side: str, count: int) -> list[float]:
    rates = zip(_rates(taken, f"{side} {count}"), _rates(taken, f"{side} 1"), strict=True)
    return [many / one for many, one in rates]


def _same(taken: Rounds, count: int) -> str:
    pairs = zip(taken[f"served {count}"], taken[f"bare {count}"], strict=True)
    return "same text" if all(ours.texts == theirs.texts for ours, theirs in pairs) else "other text"
