"""The asm runtime: Addressed State Models through torch, batched over contexts, on CPU or CUDA."""

from __future__ import annotations

from workers.runtimes.asm.opening import open_runtime
from workers.runtimes.asm.runtime import AsmRuntime

__all__ = ["AsmRuntime", "open_runtime"]
