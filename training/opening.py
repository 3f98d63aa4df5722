"""Opens a policy of either architecture over a model's weights file."""

from __future__ import annotations

from pathlib import Path

from models import asm, rwkv7
from training.asm_policy import AsmPolicy
from training.policy import Architecture, Kind, Policy, PolicyError, Start
from training.rwkv7_policy import Rwkv7Policy


def open_policy(
    architecture: Architecture,
    path: Path,
    kind: Kind,
    start: Start | None = None,
    *,
    scan: str | None = None,
    pos_mode: str | None = None,
) -> Policy:
    """A policy over the model of a weights file. Raises PolicyError that says what is wrong with file or start.

    `scan` and `pos_mode` are what the table of an ASM says; they go before what its file says.
    """
    start = start or Start()
    try:
        if architecture == "rwkv7":
            return Rwkv7Policy.open(path, kind, start)
        if architecture == "asm":
            return AsmPolicy.open(path, kind, start, scan=scan, pos_mode=pos_mode)
    except (rwkv7.WeightsError, asm.ASMError) as error:
        raise PolicyError(str(error)) from None
    raise PolicyError(f"a model of the architecture {architecture!r} cannot be trained: only rwkv7 and asm can")
