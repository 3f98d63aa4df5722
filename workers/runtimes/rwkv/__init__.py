"""The rwkv runtime: RWKV-7 from an official `.pth` or `.safetensors`, batched over contexts, on CPU or CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.runtimes.rwkv.options import Options

if TYPE_CHECKING:
    from workers.runtimes.base import Plan
    from workers.runtimes.rwkv.runtime import RwkvRuntime

__all__ = ["Options", "open_runtime"]


def open_runtime(plan: Plan) -> RwkvRuntime:
    """Load a model. Raises BadRequest that says what is wrong with the file or the plan."""
    from workers.runtimes.rwkv import opening

    return opening.open_runtime(plan)
