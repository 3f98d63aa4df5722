"""Draws the findings of a probe as one picture. Needs matplotlib, from the extra `bench`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISSING = "no plot because matplotlib is not installed: install ssmprov[bench]"
COLOURS = {"capital": "#2b7a78", "landmark": "#4a63a8", "history": "#9a7b2d", "control": "#c0562f"}
SIDES = {"routing": "#2b7a78", "residual": "#c0562f", "residual_frozen": "#8a8f98"}
DPI = 130


def draw(found: dict[str, Any], path: Path) -> bool:
    """Draws the content of `probe.json`. Returns False if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        return False
    import matplotlib as mpl

    mpl.use("Agg")  # no window
    from matplotlib import pyplot

    with mpl.rc_context({"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}):
        drawing, (margins, steering, slots) = pyplot.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
        _margins(margins, found["margin"])
        _steering(steering, found["steering"])
        _slots(slots, found["knock_out"])
        drawing.suptitle(f"{found['model']['source']}, {found['model']['parameters']:,} parameters")
        drawing.savefig(path, dpi=DPI, metadata={"Software": None})  # no version: the same findings give the same file
        pyplot.close(drawing)
    return True


def _margins(axes: Axes, found: dict[str, Any]) -> None:
    prompts = found["prompts"][::-1]
    colours = [COLOURS[prompt["group"]] for prompt in prompts]
    axes.barh(range(len(prompts)), [prompt["margin"] for prompt in prompts], color=colours)
    axes.set_yticks(range(len(prompts)), [prompt["text"] for prompt in prompts], fontsize=6)
    axes.axvline(0, color="#8a8f98", linewidth=0.8)
    axes.set_xlabel(found["measure"])
    axes.set_title("margin" + (" (proxy)" if found["proxy"] else "") + "; controls last")


def _steering(axes: Axes, found: dict[str, Any]) -> None:
    for name, colour in SIDES.items():
        side = found[name]
        label = f"{name.replace('_', ', routing ')}: slope {side['slope']:.3g}"
        change = [margin - side["margins"][0] for margin in side["margins"]]
        style = "--" if name == "residual_frozen" else "-"  # it may cover the other line
        axes.plot(found["sweep"], change, style, marker="o", markersize=3, color=colour, label=label)
    axes.set_xlabel("step along the gradient")
    axes.set_ylabel("change of the mean margin")
    axes.set_title(f"steering at layer {found['layer']}")
    axes.legend(frameon=False)


def _slots(axes: Axes, found: list[dict[str, Any]]) -> None:
    for side, name, colour in ((-0.2, "most", "#2b7a78"), (0.2, "least", "#8a8f98")):
        axes.bar(
            [one["layer"] + side for one in found],
            [one[f"{name}_kl"] for one in found],
            0.4,
            color=colour,
            label=f"{name} used",
        )
    axes.set_xticks([one["layer"] for one in found])
    axes.set_xlabel("layer")
    axes.set_ylabel("KL of the next token, nats")
    axes.set_title("slots masked")
    axes.legend(frameon=False)
