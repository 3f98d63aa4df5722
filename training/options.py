"""What the options of trainings and experiments share."""

from __future__ import annotations

import click
import torch


def usable_device(_: click.Context, __: click.Parameter, name: str) -> torch.device:
    """A device that torch can compute on here; any other is wrong usage."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device without memory of its own, as meta, fails here
    except (RuntimeError, AssertionError, NotImplementedError, ImportError):
        raise click.BadParameter(
            f"{name!r} is no device that torch can use here; there is {', '.join(devices())}"
        ) from None
    return device


def devices() -> list[str]:
    """What torch can compute on."""
    found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    return [*found, "mps"] if torch.backends.mps.is_available() else found
