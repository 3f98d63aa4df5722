"""Plots as PNG: one of all figures with a target, and one of each curve. Needs matplotlib (extra `bench`)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Bound, Curve, Figure
from benchmarks.report import Report, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "no plots, because matplotlib is not installed: install ssmprov[bench]"
MET, MISSED, MUTED = "#2b7a78", "#c0562f", "#8a8f98"
LINES = ("#2b7a78", "#c0562f", "#4a63a8", "#9a7b2d", "#7d4f8f", "#5c6670")
DPI = 130


def draw(report: Report, directory: Path) -> list[Path]:
    """Plot a report into a directory. Returns the files; empty without matplotlib."""
    if find_spec("matplotlib") is None:
        return []
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    drawn = []
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        if aimed := [figure for figure in report.figures if _reached(figure) is not None]:
            drawn.append(_targets(aimed, directory / "targets.png"))
        drawn += [_curve(one, directory / f"{_slug(f'{one.group} {one.name}')}.png") for one in report.curves]
    return drawn


def _reached(figure: Figure) -> float | None:
    """How much of its target a figure uses: 1 is the target itself, less is better. None without a target."""
    if figure.target is None or (found := _found(figure, figure.target)) <= 0:
        return None
    return found / figure.target.value if figure.target.kind == "at most" else figure.target.value / found


def _found(figure: Figure, target: Bound) -> float:
    return (figure.ratio if target.of == "ratio" else figure.measured.spread).median


def _targets(figures: list[Figure], path: Path) -> Path:
    """One bar per figure, from its target (1) to the result. It points to the left if the target is met."""
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(9, 1.2 + 0.24 * len(figures)), layout="constrained")
    for row, figure in enumerate(reversed(figures)):
        reached = _reached(figure)
        assert reached is not None
        assert figure.target is not None
        axes.barh(row, reached - 1, left=1, height=0.6, color=MET if figure.met else MISSED)
        sign = "≤" if figure.target.kind == "at most" else "≥"
        axes.annotate(
            f"{number(_found(figure, figure.target))} ({sign} {number(figure.target.value)})",
            (max(reached, 1), row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=MUTED,
        )
    axes.set_yticks(range(len(figures)), [f"{one.group}: {one.name}" for one in reversed(figures)], fontsize=7)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    powers = [2.0**power for power in range(-30, 31) if low <= 2.0**power <= high]
    axes.set_xticks(powers, [number(x) if x >= 1 else f"1/{number(1 / x)}" for x in powers])
    axes.minorticks_off()
    axes.axvline(1, color=MUTED, linewidth=0.8)
    axes.set_xlabel("result as a share of the target: left of 1 the target is met")
    return _save(drawing, path)


def _curve(curve: Curve, path: Path) -> Path:
    """Lines through the medians, with a band from the smallest to the largest round."""
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for line, colour in zip(curve.lines, LINES * len(curve.lines), strict=False):
        xs = [point.x for point in line.points]
        axes.plot(
            xs, [point.spread.median for point in line.points], "o-", color=colour, label=line.label, markersize=3
        )
        lows, highs = ([getattr(point.spread, end) for point in line.points] for end in ("min", "max"))
        axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    _scale(axes, curve)
    axes.set_title(curve.name, fontsize=10, loc="left")
    axes.set_xlabel(curve.x)
    axes.set_ylabel(curve.y)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    return _save(drawing, path)


def _scale(axes: Axes, curve: Curve) -> None:
    if curve.log_x:
        axes.set_xscale("log")
        places = sorted({point.x for line in curve.lines for point in line.points})
        axes.set_xticks(places, [number(x) for x in places])
        axes.minorticks_off()
    if curve.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _save(drawing: object, path: Path) -> Path:
    from matplotlib import pyplot
    from matplotlib.figure import Figure as Drawing

    assert isinstance(drawing, Drawing)
    drawing.savefig(path, dpi=DPI)
    pyplot.close(drawing)
    return path


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
