"""The options of the llama runtime in a model's table."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of each worker, tokens computed at once, tokens of a transformer's context, and layers on the GPU."""

    n_threads: Annotated[int, Meta(ge=1, le=1024)] | None = None
    n_batch: Annotated[int, Meta(ge=1, le=16384)] | None = None
    n_ctx: Annotated[int, Meta(ge=16, le=1 << 24)] | None = None
    n_gpu_layers: Annotated[int, Meta(ge=0, le=9999)] | None = None
