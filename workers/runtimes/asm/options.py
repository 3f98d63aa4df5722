"""The options of the asm runtime in a model's table."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Threads of torch in each worker; the scan and the position mode, or '' for those in the file."""

    threads: Annotated[int, Meta(ge=1)] = 1
    scan: str = ""
    pos_mode: str = ""
