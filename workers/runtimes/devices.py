"""The torch devices that a model's table may name."""

from __future__ import annotations

import torch

from ssmprov.errors import BadRequest


def device_of(text: str) -> torch.device:
    """The torch device of that name. Raises BadRequest if this torch does not have it."""
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise BadRequest(f'device {text!r} is unknown: write "cpu" or "cuda:0"')
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BadRequest(f'device {text!r}: this torch sees no such CUDA device; use "cpu"')
    return device
