"""The learning-rate schedule of every training run."""

from __future__ import annotations

import math


def schedule(progress: float, *, warm_up: float, cool_down: float, floor: float, head_start: float) -> float:
    """The factor on a learning rate at `progress`, 0 to 1. It rises linearly, stays at 1, then falls along a cosine.

    It ends at `floor`. `warm_up` and `cool_down` are shares of the run. `head_start`, another share, keeps the first
    factor above 0.
    """
    if progress < warm_up:
        return (progress + head_start) / (warm_up + head_start)
    left = (1 - min(progress, 1.0)) / cool_down
    return 1.0 if left >= 1 else floor + (1 - floor) * (0.5 - 0.5 * math.cos(math.pi * left))
