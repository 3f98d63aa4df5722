"""Opens a policy on a model's weights file, for either architecture."""

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
    """A policy on the model of a weights file. Raises PolicyError, which says what is wrong with the file or the start.

    For an ASM, `scan` and `pos_mode` come from its table in the configuration; they override what its file says.
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
