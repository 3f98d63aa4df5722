"""Contexts that write side by side: streamed through the broker, and by a bare model over the same weights.

Both read one token, then write greedily; the served side streams, each context to a thread of one client. The two
never run at the same time.
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
"""The name under which the model is served."""

LETTERS = string.ascii_letters + string.digits + "+-"
"""A prompt for each of up to 64 contexts, of one token in every vocabulary."""

GREEDY = {"temp": 0.0, "pen_freq": 0.0, "pen_pres": 0.0, "pen_rep": 1.0}
"""Whatever the served model's sampling set says: the other side has no penalties."""


GAIN_AT = 8
"""Contexts at which the gain of the served model is held against that of the bare one."""


@dataclass(frozen=True, slots=True)
class Taken:
    """One round of one side: tokens a second over all contexts, and what was written."""

    rate: float
    texts: list[str]


Rounds = Mapping[str, Sequence[Taken]]
"""Of sides `served N` and `bare N`, with N contexts."""


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

    def run(letter: str) -> tuple[str, int]:
        with client.stream(letter, model=MODEL, max_tokens=tokens, values=GREEDY) as stream:
            return "".join(stream), stream.reply.result.reply_tokens

    began = perf_counter()
    with ThreadPoolExecutor(count) as pool:
        replies = list(pool.map(run, LETTERS[:count]))
    seconds = perf_counter() - began
    texts, lengths = [text for text, _ in replies], [length for _, length in replies]
    if set(lengths) != {tokens}:
        raise RuntimeError(f"replies of {lengths} tokens, where each should have {tokens}")
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
    """Served against bare at each number of contexts, then what each side gains over its one context.

    `target` and `limit` are those of one context, `gain` is that of eight: the gain of the served model over that
    of the bare one.
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
    """Tokens a second of each side over the number of contexts."""
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
