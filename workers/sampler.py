"""One vectorised sampler for all runtimes: penalties, temperature, top-k, top-p, min-p, in this order.

Penalties over the window of the last tokens read: a logit in the window is divided by `pen_rep` where positive and
multiplied where negative (Keskar et al. 2019, CTRL), then lowered by `pen_freq` for each occurrence and by `pen_pres`
once. Top-p keeps the fewest most likely tokens whose share of what top-k left reaches p (Holtzman et al. 2020), min-p
those at least p times as likely as the first (Nguyen et al. 2024). Draws come from Philox counters (seed, position), so
that a sequence can be taken up anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssmprov.settings import Settings

BANNED = np.float32(-np.inf)
CANDIDATES = 1024
"""So many of the likeliest tokens are sorted first; the whole vocabulary only where they do not suffice."""

Logits = NDArray[np.float32]


@dataclass(slots=True)
class Draw:
    """What one row is sampled by. `allowed` [V] admits tokens, `banned` refuses some; `retry` counts redraws."""

    settings: Settings
    window: Sequence[int]
    seed: int
    position: int
    retry: int = 0
    banned: list[int] = field(default_factory=list)
    allowed: NDArray[np.bool_] | None = None


def sample(logits: Logits, draws: Sequence[Draw]) -> list[int]:
    """A token for each row of logits [B,V], which are left as they are."""
    scores = logits.astype(np.float32, copy=True)
    _penalise(scores, draws)
    for row, draw in enumerate(draws):
        if draw.allowed is not None:
            scores[row, ~draw.allowed] = BANNED
        if draw.banned:
            scores[row, draw.banned] = BANNED
    best = scores.argmax(axis=1)
    return [
        int(best[row]) if _greedy(draw, scores[row, best[row]]) else _draw(scores[row], draw)
        for row, draw in enumerate(draws)
    ]


def _greedy(draw: Draw, highest: np.float32) -> bool:
    return draw.settings.temp <= 0 or draw.settings.top_k == 1 or highest == BANNED


def uniform(seed: int, position: int, retry: int) -> float:
    """The draw in [0, 1) of a seed at a position: 53 bits of one Philox block."""
    raw = np.random.Philox(key=seed, counter=[position, retry, 0, 0]).random_raw()
    return float(int(raw) >> 11) * 2.0**-53


def share(logits: Logits, members: NDArray[np.bool_]) -> float:
    """The share of the raw softmax of logits [V] that the members [V] hold."""
    weights = np.exp(logits - logits.max(), dtype=np.float64)
    return float(weights[members].sum() / weights.sum())


def _penalise(scores: Logits, draws: Sequence[Draw]) -> None:
    for row, draw in enumerate(draws):
        settings = draw.settings
        if not len(draw.window) or (settings.pen_rep == 1 and not settings.pen_freq and not settings.pen_pres):
            continue
        tokens, counts = np.unique(np.asarray(draw.window, np.int64), return_counts=True)
        values = scores[row, tokens]
        values = np.where(values > 0, values / settings.pen_rep, values * settings.pen_rep)
        scores[row, tokens] = values - settings.pen_freq * counts - settings.pen_pres


def _draw(scores: Logits, draw: Draw) -> int:
    settings = draw.settings
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the highest to minus infinity
        scaled = (scores - scores.max()).astype(np.float64) / settings.temp
    point = uniform(draw.seed, draw.position, draw.retry)
    top_k = min(settings.top_k or len(scaled), len(scaled))
    if top_k == len(scaled) and settings.top_p >= 1 and settings.min_p <= 0:
        return _pick(np.arange(len(scaled)), np.exp(scaled), point)
    order = _likeliest(scaled, top_k if top_k < len(scaled) else CANDIDATES)
    weights = np.exp(scaled[order])
    whole = weights.sum() if top_k <= len(order) else np.exp(scaled).sum()
    if top_k > len(order) and not _enough(weights, whole, settings):
        order = _likeliest(scaled, top_k)
        weights = np.exp(scaled[order])
    keep = np.cumsum(weights) - weights < settings.top_p * whole  # the share before a token is still below p
    keep &= weights >= settings.min_p * weights[0]
    keep[0] = True
    return _pick(order[keep], weights[keep], point)


def _enough(weights: NDArray[np.float64], whole: float, settings: Settings) -> bool:
    """Whether no token behind these sorted ones can pass top-p or min-p."""
    return bool(weights.sum() >= settings.top_p * whole or weights[-1] < settings.min_p * weights[0])


def _likeliest(scaled: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """The ids of the `count` highest scores, highest first, of equal ones the lowest id first."""
    ids = np.arange(len(scaled))
    if count < len(scaled):
        edge = np.partition(scaled, -count)[-count]
        above = np.flatnonzero(scaled > edge)
        ids = np.concatenate((above, np.flatnonzero(scaled == edge)[: count - len(above)]))
    return ids[np.argsort(-scaled[ids], kind="stable")]


def _pick(ids: NDArray[np.int64], weights: NDArray[np.float64], point: float) -> int:
    edges = np.cumsum(weights)
    return int(ids[min(np.searchsorted(edges, point * edges[-1], side="right"), len(ids) - 1)])
