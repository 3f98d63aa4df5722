"""What the entry points share: common options, and errors shown as one line."""

from __future__ import annotations

import errno
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click
import torch

from models.asm.errors import ASMError
from training.options import usable_device

P = ParamSpec("P")
R = TypeVar("R")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def common_options(outdir: str) -> Callable[[Decorated], Decorated]:
    """Adds the options --device, --seed, --outdir and --threads. An --outdir that is a file is a usage error.

    The default is one thread: small models are then many times faster than on several threads that wait for each
    other, and sums always have the same order.
    """

    def add(command: Decorated) -> Decorated:
        for option in (
            click.option(
                "--threads",
                type=click.IntRange(min=1),
                default=1,
                show_default=True,
                expose_value=False,
                callback=lambda _, __, count: torch.set_num_threads(count),
                help="CPU threads; more help only with large models.",
            ),
            click.option(
                "--outdir",
                type=click.Path(path_type=Path, file_okay=False),
                default=Path(outdir),
                show_default=True,
                help="Directory for the results.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(0, 2**63 - 1),
                default=0,
                show_default=True,
                help="Seed for everything random.",
            ),
            click.option(
                "--device", callback=usable_device, default="cpu", show_default=True, help="cpu, cuda:0, mps, ..."
            ),
        ):
            command = option(command)
        return command

    return add


def one_line_errors(body: Callable[P, R]) -> Callable[P, R]:
    """Turns errors about bad input, paths that cannot be written, and too little memory into click errors."""

    @functools.wraps(body)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return body(*args, **kwargs)
        except ASMError as error:
            raise click.ClickException(str(error)) from None
        except RuntimeError as error:  # on a CPU, only the text shows that memory ran out
            if not isinstance(error, torch.OutOfMemoryError) and "tried to allocate" not in str(error):
                raise
            raise click.ClickException(f"the device does not have enough memory for this model ({error})") from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from None

    return run


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes a file that appears only when it is complete."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)
