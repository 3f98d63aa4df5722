"""The options of the rwkv runtime in a model's table."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

Dtype = Literal["fp32", "bf16", "fp16"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of torch in each worker, another dtype for prefill than for decode, and int8 weights for decode."""

    threads: Annotated[int, Meta(ge=1)] = 1
    prefill_dtype: str = ""
    quantize: str = ""

    def __post_init__(self) -> None:
        if self.prefill_dtype and self.prefill_dtype not in DTYPES:
            raise ValueError(f"prefill_dtype must be one of {', '.join(DTYPES)}, not {self.prefill_dtype!r}")
        if self.quantize not in ("", "int8"):
            raise ValueError(f'quantize must be "int8" or left out, not {self.quantize!r}')
