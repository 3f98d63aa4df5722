"""One vectorised sampler for all runtimes: penalties, temperature, top-k, top-p, min-p, in this order.

Penalties apply to the window of the last tokens read: a logit in the window is divided by `pen_rep` if positive and
multiplied if negative (Keskar et al. 2019, CTRL), then lowered by `pen_freq` for each occurrence and by `pen_pres`
once. Top-p keeps the fewest most likely tokens whose share of what top-k left reaches p (Holtzman et al. 2020), min-p
those at least p times as likely as the first (Nguyen et al. 2024). Draws come from Philox counters (seed, position), so
a sequence can be continued anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ssmprov.settings import Settings

BANNED = np.float32(-np.inf)
CANDIDATES = 1024
"""This many of the likeliest tokens are sorted first; the whole vocabulary only if they are not enough."""

COLUMNS = 4 * CANDIDATES
"""The number of columns into which a large vocabulary is cut to find its likeliest tokens."""

COLDEST = 1e-30
"""Any lower temperature leaves only the highest scores, as this one does; single precision can still hold this one."""

BLOCK = 256
"""How many weights are summed at once to pick one of very many."""

Logits = NDArray[np.float32]
Real = TypeVar("Real", np.float32, np.float64)


@dataclass(slots=True, kw_only=True)
class Draw:
    """How to sample one row: `allowed` [V] marks tokens, `banned` lists rejected ones; `retry` counts redraws."""

    settings: Settings
    window: Sequence[int]
    seed: int
    position: int
    retry: int = 0
    banned: list[int] = field(default_factory=list)
    allowed: NDArray[np.bool_] | None = None


def sample(rows: Sequence[Logits], draws: Sequence[Draw]) -> list[int]:
    """One token for each row of logits [V]. The logits stay unchanged."""
    scores = np.empty(len(rows[0]), np.float32)  # row by row, in memory that is then in the cache
    tokens = []
    for logits, draw in zip(rows, draws, strict=True):
        np.copyto(scores, logits)
        tokens.append(_sample(scores, draw))
    return tokens


def _sample(scores: Logits, draw: Draw) -> int:
    """A token for one row of scores [V], which are changed in place."""
    _penalise(scores, draw)
    if draw.allowed is not None:
        scores[~draw.allowed] = BANNED
    if draw.banned:
        scores[draw.banned] = BANNED
    best = int(scores.argmax())
    highest = scores[best]
    greedy = draw.settings.temp <= 0 or draw.settings.top_k == 1 or highest == BANNED
    if greedy:
        return best
    scores -= highest
    return _draw(scores, draw)


def uniform(seed: int, position: int, retry: int) -> float:
    """The random number in [0, 1) for a seed at a position: 53 bits of one Philox block."""
    raw = np.random.Philox(key=seed, counter=[position, retry, 0, 0]).random_raw()
    return float(int(raw) >> 11) * 2.0**-53


def share(logits: Logits, members: NDArray[np.bool_]) -> float:
    """The share of the softmax of logits [V] that the members [V] hold."""
    weights = np.exp(logits - logits.max(), dtype=np.float64)
    return float(weights[members].sum() / weights.sum())


def _penalise(scores: Logits, draw: Draw) -> None:
    settings = draw.settings
    if not len(draw.window) or (settings.pen_rep == 1 and not settings.pen_freq and not settings.pen_pres):
        return
    tokens, counts = np.unique(np.asarray(draw.window, np.int64), return_counts=True)
    values = scores[tokens]
    values = np.where(values > 0, values / settings.pen_rep, values * settings.pen_rep)
    scores[tokens] = values - settings.pen_freq * counts - settings.pen_pres


def _draw(scores: Logits, draw: Draw) -> int:
    """A random token; the highest score is 0."""
    settings = draw.settings
    point = uniform(draw.seed, draw.position, draw.retry)
    if 0 < settings.top_k < len(scores):
        order, weights = _likeliest(scores, settings.top_k, settings.temp)
        whole = weights.sum()
    else:
        every = _weights(scores, settings.temp)
        if settings.top_p >= 1 and settings.min_p <= 0:
            return _pick(every, point)
        whole = every.sum(dtype=np.float64)
        order, weights = _enough(scores, whole, settings)
    keep = np.cumsum(weights) - weights < settings.top_p * whole  # the share before a token is still below p
    keep &= weights >= settings.min_p * weights[0]
    keep[0] = True
    return int(order[keep][_pick(weights[keep], point)])


def _weights(scores: NDArray[Real], temp: float) -> NDArray[Real]:
    """The softmax without its division by the sum, in the precision of the scores."""
    with np.errstate(over="ignore"):  # a tiny temperature sends all but the highest scores to minus infinity
        weights = scores / scores.dtype.type(max(temp, COLDEST))
    np.exp(weights, out=weights)
    return weights


def _enough(scores: Logits, whole: float, settings: Settings) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest tokens and their weights: so many that no other token can pass top-p or min-p."""
    order, weights = _likeliest(scores, CANDIDATES, settings.temp)
    if weights.sum() >= settings.top_p * whole or weights[-1] < settings.min_p * weights[0]:
        return order, weights
    return _likeliest(scores, len(scores), settings.temp)


def _likeliest(scores: Logits, count: int, temp: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ids of the `count` highest scores, highest first, and of equal scores the lowest id first; and their weights.

    A large vocabulary is cut into columns. At least `count` scores are as high as the `count`-th highest maximum of the
    columns, and not many more are: only these are sorted.
    """
    rows = len(scores) // COLUMNS
    if rows > 1 and count <= CANDIDATES:
        highest = scores[: rows * COLUMNS].reshape(rows, COLUMNS).max(axis=0)
        ids = np.flatnonzero(scores >= np.partition(highest, -count)[-count])
    else:
        ids = np.arange(len(scores))
    found = scores[ids]
    order = np.argsort(-found, kind="stable")[:count]
    return ids[order], _weights(found[order].astype(np.float64), temp)


def _pick(weights: NDArray[Real], point: float) -> int:
    """The index at which the running sum of the weights passes `point` of the whole; summed in a few blocks."""
    sums = np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), BLOCK)), dtype=np.float64)
    aim = point * sums[-1]
    block = min(int(np.searchsorted(sums, aim, side="right")), len(sums) - 1)
    inside = weights[block * BLOCK : (block + 1) * BLOCK]
    passed = np.cumsum(inside, dtype=np.float64) > aim - (sums[block - 1] if block else 0.0)
    found = np.flatnonzero(passed & (inside > 0))
    return block * BLOCK + int(found[0] if len(found) else np.flatnonzero(inside)[-1])
