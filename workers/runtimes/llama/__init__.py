"""The llama runtime: any GGUF through llama.cpp, recurrent models and transformers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.runtimes.llama.options import Options

if TYPE_CHECKING:
    from workers.runtimes.base import Plan
    from workers.runtimes.llama.runtime import LlamaRuntime

__all__ = ["Options", "open_runtime"]


def open_runtime(plan: Plan) -> LlamaRuntime:
    """Load a GGUF. Raises BadRequest that says what is wrong with file or plan, Unsupported without the library."""
    from workers.runtimes.llama import native

    native.library()  # first: what follows needs the rest of the extra, and would fail without a clear message
    from workers.runtimes.llama import opening

    return opening.open_runtime(plan)
