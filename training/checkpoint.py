"""The checkpoint of a training run. A run that continues from it gives the same result as one that never stopped.

It is a torch file with these entries: `format`; `of`, plain values that say what is trained; `step`; `tensors`, the
trained ones; `optimizers`, a list of their states; and `more`, everything else that the run needs.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

NAME = "checkpoint.pth"
FORMAT = 1


class CheckpointError(Exception):
    """The file is damaged, or another version of this program wrote it. The message names the file."""


def write(
    path: Path,
    *,
    of: Any,
    step: int,
    tensors: Mapping[str, Tensor],
    optimizers: Sequence[torch.optim.Optimizer],
    more: Mapping[str, Any],
) -> None:
    """Replace the file as a whole: the old file stays until the new one is on the disk. Raises OSError."""
    content = {
        "format": FORMAT,
        "of": of,
        "step": step,
        "tensors": {name: tensor.detach() for name, tensor in tensors.items()},
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "more": dict(more),
    }
    buffer = io.BytesIO()  # if torch writes the file itself, its error does not say what is wrong with the disk
    torch.save(content, buffer)
    part = path.with_suffix(".part")
    try:
        with part.open("wb") as file:
            file.write(buffer.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def read(path: Path) -> dict[str, Any]:
    """The entries of a file. Raises CheckpointError."""
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch and its unpickler check little, and may raise anything
        raise CheckpointError(f"{path} cannot be read ({type(error).__name__})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} was written by another version of this program")
    return content


@torch.no_grad()
def restore(
    content: Mapping[str, Any], tensors: Mapping[str, Tensor], optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Set tensors and optimisers to what a checkpoint holds.

    Raises KeyError, TypeError, ValueError or RuntimeError if they do not fit. Some may already be set then.
    """
    for name, tensor in tensors.items():
        tensor.copy_(content["tensors"][name])
    for optimizer, saved in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
