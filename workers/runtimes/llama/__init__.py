"""The llama runtime: any GGUF through llama.cpp, recurrent models and transformers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from workers.runtimes.base import Plan
    from workers.runtimes.llama.runtime import LlamaRuntime


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of each worker, tokens computed at once, tokens of a transformer's context, and layers on the GPU."""

    n_threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    n_batch: Annotated[int, Meta(ge=1, le=16384)] | None = None
    n_ctx: Annotated[int, Meta(ge=16, le=1 << 24)] | None = None
    n_gpu_layers: Annotated[int, Meta(ge=0, le=9999)] | None = None


def open_runtime(plan: Plan) -> LlamaRuntime:
    """Load a GGUF. Raises BadRequest that says what is wrong with file or plan, Unsupported without the library."""
    from workers.runtimes.llama import native

    native.library()  # first: what follows needs the rest of the extra, and would fail without a clear message
    from workers.runtimes.llama import opening

    return opening.open_runtime(plan)
