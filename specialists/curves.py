"""The curves of a run: reads the values of its objective from `curve.json`, and draws them as lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

FILE = "curve.json"
MAX_BYTES = 1 << 20
WIDTH, HEIGHT, LEFT, BELOW = 640, 200, 56, 24
"""The size of a chart and the space for its numbers, in pixels."""

OBJECTIVE = ("training", "validation")
STEEP = 50
"""If the largest value is more than this many times the smallest, the chart has a logarithmic axis."""

COLOURS = ("#2f6db5", "#c2601c", "#3d8a4f", "#8a4f9e", "#777777")

Points = Sequence[tuple[float, float]]
Curves = Mapping[str, Points]


def read_curves(directory: Path) -> Curves:
    """The points (step, value) of each curve by name. Empty if the run has no curves that can be read."""
    path = directory / FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            return {}
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, list[tuple[float, float]]])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}
    finite = {name: [(x, y) for x, y in points if math.isfinite(y)] for name, points in found.items()}
    return {name: points for name, points in finite.items() if points}


def chart(curves: Curves) -> str:
    """SVG charts: the objective and its validation in one, and below it one chart for every other curve."""
    objective = {name: curves[name] for name in OBJECTIVE if name in curves}
    others = [{name: points} for name, points in curves.items() if name not in OBJECTIVE]
    return "".join(_lines(group) for group in (objective, *others) if group)


def _lines(curves: Curves) -> str:
    xs = [x for points in curves.values() for x, _ in points]
    ys = [y for points in curves.values() for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    # Without the logarithm, a loss that fell far looks like a flat line at the bottom.
    scale = math.log if low > 0 and high > STEEP * low else float
    wide, tall = right - left or 1.0, scale(high) - scale(low) or 1.0

    def at(x: float, y: float) -> str:
        across = LEFT + (x - left) / wide * (WIDTH - LEFT - 8)
        return f"{across:.1f},{8 + (scale(high) - scale(y)) / tall * (HEIGHT - BELOW - 16):.1f}"

    drawn, names = [], []
    for number, (name, points) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        line = " ".join(at(x, y) for x, y in points)
        drawn.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{line}"/>')
        names.append(f'<tspan fill="{colour}">{_plain(name)}</tspan>')
    numbers = "".join(
        f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" class="axis">{value:.3g}</text>'
        for y, value in ((14, high), (HEIGHT - BELOW - 4, low))
    )
    steps = f'<text x="{LEFT}" y="{HEIGHT - 6}" class="axis">{left:g}</text>' + (
        f'<text x="{WIDTH - 8}" y="{HEIGHT - 6}" text-anchor="end" class="axis">step {right:g}</text>'
    )
    note = " (logarithmic)" if scale is math.log else ""
    title = f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle" class="axis">{", ".join(names)}{note}</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" class="curve" role="img">'
        f"{numbers}{steps}{title}{''.join(drawn)}</svg>"
    )


def _plain(name: str) -> str:
    """A curve's name, escaped for SVG text."""
    return "".join(character for character in name if character.isalnum() or character in " _-")
