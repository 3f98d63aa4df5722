"""The rwkv runtime: RWKV-7 from an official `.pth` or `.safetensors`, batched over contexts, on CPU or CUDA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

import msgspec
from msgspec import Meta

if TYPE_CHECKING:
    from workers.runtimes.base import Plan
    from workers.runtimes.rwkv.runtime import RwkvRuntime

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


def open_runtime(plan: Plan) -> RwkvRuntime:
    """Load a model. Raises BadRequest that says what is wrong with the file or the plan."""
    from workers.runtimes.rwkv import opening

    return opening.open_runtime(plan)
