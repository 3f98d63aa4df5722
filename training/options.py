"""Command-line options that training and experiments share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch

from training.loop import Settings

COUNT = click.IntRange(min=1)
POSITIVE = click.FloatRange(min=0, min_open=True)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
DEFAULTS = Settings()


def run_options(*, outdir: str, steps: int, lanes: int, window: int) -> Callable[[Callable[..., None]], Any]:
    """Adds the options of a training run, with these defaults.

    The command gets `outdir`, `threads` and `compiled`, and all other options as `settings`.
    """
    options = (
        click.option(
            "--outdir",
            type=click.Path(path_type=Path),
            default=Path(outdir),
            help="Directory for checkpoint, weights, losses and log.",
        ),
        click.option(
            "--steps", type=COUNT, default=steps, help="Length of the run in steps, unless you set --minutes."
        ),
        click.option("--minutes", type=POSITIVE, help="Length of the run in minutes."),
        click.option("--seed", default=DEFAULTS.seed, help="Seed of weights and texts."),
        click.option("--lanes", type=COUNT, default=lanes, help="How many texts to read in parallel."),
        click.option("--window", type=COUNT, default=window, help="Tokens of each lane per step."),
        click.option("--rate", type=POSITIVE, default=DEFAULTS.rate, help="Learning rate of AdamW."),
        click.option("--matrix-rate", type=POSITIVE, default=DEFAULTS.matrix_rate, help="Learning rate of Muon."),
        click.option(
            "--cool-down",
            type=POSITIVE,
            default=DEFAULTS.cool_down,
            help="Share of the run, at its end, in which the learning rates fall.",
        ),
        click.option("--threads", type=COUNT, default=1, help="CPU threads."),
        click.option(
            "--compiled", is_flag=True, help="Use torch.compile: a third faster, but it needs a C++ compiler."
        ),
    )

    def add(command: Callable[..., None]) -> Any:
        @functools.wraps(command)
        def run(
            *,
            steps: int,
            minutes: float | None,
            seed: int,
            lanes: int,
            window: int,
            rate: float,
            matrix_rate: float,
            cool_down: float,
            **others: Any,
        ) -> None:
            settings = Settings(
                seed=seed,
                lanes=lanes,
                window=window,
                steps=steps,
                minutes=minutes,
                rate=rate,
                matrix_rate=matrix_rate,
                cool_down=cool_down,
            )
            command(settings=settings, **others)

        found: Any = run
        for option in reversed(options):
            found = option(found)
        return found

    return add


def usable_device(_: click.Context, __: click.Parameter, name: str) -> torch.device:
    """The device with this name. Raises BadParameter if torch cannot compute on it on this machine."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # fails for a device without memory, such as meta
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise click.BadParameter(
            f"torch cannot use the device {name!r} on this machine; available: {', '.join(devices())}"
        ) from None
    return device


def devices() -> list[str]:
    """The devices that torch can compute on."""
    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found
