"""`ssmprov asm`: the entry points of the research library. You can also run each with `python -m`."""

from __future__ import annotations

import click

from ssmprov.main import LazyGroup

ENTRY_POINTS: dict[str, tuple[str, str]] = {
    "smoke": ("research.asm.smoke:main", "Read, step, resume and train one step; check shapes and finite numbers."),
    "train-mini": ("training.asm_mini:main", "Train a small model on the text that comes with the project."),
    "probe": ("research.asm.probe:main", "Measure the Paris margin, steer routing and residual, and knock out slots."),
}
"""The subcommands, in the format of `ssmprov.main.COMMANDS`."""


@click.group("asm", cls=LazyGroup, lazy=ENTRY_POINTS)
def asm() -> None:
    """Try out, train and probe an Addressed State Model (see docs/asm)."""
