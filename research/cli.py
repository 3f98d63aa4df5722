"""`ssmprov asm`: the entry points of the research library, which run as `python -m` too."""

from __future__ import annotations

import click

from ssmprov.main import LazyGroup

ENTRY_POINTS: dict[str, tuple[str, str]] = {
    "smoke": ("research.asm.smoke:main", "Read, step, resume and one training step: shapes and finiteness."),
    "train-mini": ("training.asm_mini:main", "Train a small model on the shipped text."),
    "probe": ("research.asm.probe:main", "The Paris margin, routing against residual, slots knocked out."),
}
"""As `ssmprov.main.COMMANDS`."""


@click.group("asm", cls=LazyGroup, lazy=ENTRY_POINTS)
def asm() -> None:
    """Try out, train and probe an Addressed State Model (docs/asm)."""
