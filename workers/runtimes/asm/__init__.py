"""The asm runtime: Addressed State Models through torch, batched over contexts, on CPU or CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.runtimes.asm.options import Options

if TYPE_CHECKING:
    from workers.runtimes.asm.runtime import AsmRuntime
    from workers.runtimes.base import Plan

__all__ = ["Options", "open_runtime"]


def open_runtime(plan: Plan) -> AsmRuntime:
    """Load a model. Raises NotFound, BadRequest or Unsupported that say what is wrong with the file or the plan."""
    from workers.runtimes.asm import opening

    return opening.open_runtime(plan)
