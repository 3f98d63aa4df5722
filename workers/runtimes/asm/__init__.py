"""The asm runtime: Addressed State Models through torch, batched over contexts, on CPU or CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from workers.runtimes.asm.runtime import AsmRuntime
    from workers.runtimes.base import Plan


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of torch in each worker; the scan and the position mode, or '' for those in the file."""

    threads: Annotated[int, Meta(ge=1)] = 1
    scan: str = ""
    pos_mode: str = ""


def open_runtime(plan: Plan) -> AsmRuntime:
    """Load a model. Raises NotFound, BadRequest or Unsupported that say what is wrong with the file or the plan."""
    from workers.runtimes.asm import opening

    return opening.open_runtime(plan)
