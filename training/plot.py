"""Draws the curve of a run as a PNG. Needs matplotlib, from the extra `bench`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from training.loop import Point

MISSING = "no plot because matplotlib is not installed (pip install 'ssmprov[bench]'); the losses are in losses.json"
COLOURS = ("#2b7a78", "#c0562f", "#4a63a8", "#9a7b2d")


def draw_losses(curves: Mapping[str, Sequence[Point]], path: Path, by: str = "step") -> bool:
    """Draws training loss (thin line) and held-out loss (dots) over `step`, `seconds` or `tokens`.

    Returns False if matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    from matplotlib import pyplot

    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        drawing, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
            axes.plot([getattr(p, by) for p in curve], [p.loss for p in curve], color=colour, alpha=0.4, linewidth=0.8)
            held = [(getattr(p, by), p.held_out) for p in curve if p.held_out is not None]
            axes.plot(
                [x for x, _ in held], [y for _, y in held], "o-", color=colour, markersize=4, label=f"{name}, held out"
            )
        axes.set(xlabel=by, ylabel="loss, nats per token", ylim=(0, None))
        axes.legend(frameon=False)
        drawing.savefig(path, dpi=130)
        pyplot.close(drawing)
    return True
