"""Rows of the track `svg`: a few tags, and the drawing that they ask for.

A drawing has one or more shapes in a palette and a style, or is a bar chart. It depends only on its tags, so a model
that has understood the tags can write every byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

SIZE = 64
PALETTES = {
    "warm": ("#d94", "#e63", "#c22", "#fb5", "#a31"),
    "cool": ("#28c", "#3af", "#156", "#6cd", "#249"),
    "green": ("#283", "#4a5", "#7c4", "#163", "#9d8"),
    "gray": ("#555", "#888", "#222", "#bbb", "#eee"),
}
STYLES = ("filled", "outline", "minimal")
MAX_COUNT = 4
MAX_BARS = 7
FLOOR = 58
"""The y coordinate of the bars' lower ends."""

Drawn = tuple[list[str], list[str]]
"""The tags, and the elements of their drawing."""


def compose(rng: Random) -> str:
    """A row with its tags in the usual order."""
    return _row(*_drawn(rng))


def wide(rng: Random) -> str:
    """A row with its tags in any order: the same drawings, with more ways to ask."""
    tags, drawn = _drawn(rng)
    rng.shuffle(tags)
    return _row(tags, drawn)


def _drawn(rng: Random) -> Drawn:
    return _chart(rng) if rng.random() < 0.4 else _shapes(rng)


def _shapes(rng: Random) -> Drawn:
    shape = rng.choice(tuple(_SHAPES))
    palette, style = rng.choice(tuple(PALETTES)), rng.choice(STYLES)
    count = 1 if style == "minimal" else rng.randint(1, MAX_COUNT)
    tags = [shape, *([f"count:{count}"] if count > 1 else []), f"palette:{palette}", f"style:{style}"]
    step = SIZE // (count + 1)
    drawn = [
        _SHAPES[shape](step * (i + 1), SIZE // 2, max(4, step // 2 - 1), _paint(PALETTES[palette][i], style))
        for i in range(count)
    ]
    return tags, drawn


def _chart(rng: Random) -> Drawn:
    bars = rng.randint(2, MAX_BARS)
    order = rng.choice(("", "ascending", "descending"))
    palette, axes = rng.choice(tuple(PALETTES)), rng.random() < 0.5
    heights = [8 + 6 * i for i in range(bars)]
    if order == "descending":
        heights.reverse()
    elif not order:
        heights = [heights[i * 3 % bars if bars % 3 else (i * 2 + 1) % (bars + 1) % bars] for i in range(bars)]
    tags = ["bar-chart", f"bars:{bars}", *([order] if order else []), f"palette:{palette}"]
    tags += ["axes"] if axes else []
    drawn = [
        f'<rect x="{6 + 8 * i}" y="{FLOOR - height}" width="6" height="{height}" fill="{PALETTES[palette][i % 5]}"/>'
        for i, height in enumerate(heights)
    ]
    if axes:
        drawn += [
            f'<line x1="4" y1="4" x2="4" y2="{FLOOR}" stroke="#000"/>',
            f'<line x1="4" y1="{FLOOR}" x2="62" y2="{FLOOR}" stroke="#000"/>',
        ]
    return tags, drawn


def _row(tags: list[str], drawn: list[str]) -> str:
    return "".join(f"[{tag}]" for tag in tags) + f'<svg viewBox="0 0 {SIZE} {SIZE}">{"".join(drawn)}</svg>'


def _paint(colour: str, style: str) -> str:
    return f'fill="none" stroke="{colour}"' if style == "outline" else f'fill="{colour}"'


def _points(x: int, y: int, radii: list[int]) -> str:
    turns = [(2 * math.pi * i / len(radii), r) for i, r in enumerate(radii)]
    return " ".join(f"{x + round(r * math.sin(a))},{y - round(r * math.cos(a))}" for a, r in turns)


_SHAPES: dict[str, Callable[[int, int, int, str], str]] = {
    "circle": lambda x, y, r, paint: f'<circle cx="{x}" cy="{y}" r="{r}" {paint}/>',
    "rect": lambda x, y, r, paint: f'<rect x="{x - r}" y="{y - r}" width="{2 * r}" height="{2 * r}" {paint}/>',
    "ellipse": lambda x, y, r, paint: f'<ellipse cx="{x}" cy="{y}" rx="{r}" ry="{2 * r}" {paint}/>',
    "triangle": lambda x, y, r, paint: f'<polygon points="{_points(x, y, [r] * 3)}" {paint}/>',
    "polygon": lambda x, y, r, paint: f'<polygon points="{_points(x, y, [r] * 6)}" {paint}/>',
    "star": lambda x, y, r, paint: f'<polygon points="{_points(x, y, [r, r // 2] * 5)}" {paint}/>',
}
