"""The labels of the old protocol's errors: `[LABEL] WHY`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ssmprov.errors import SsmprovError

ERROR = "error"
LOAD = "load error"
SAVE = "save error"
LOAD_SET = "load_set error"
SAVE_SET = "save_set error"
PROBE = "probe error"
LOOK = {"/routing": "routing error", "/slotmask": "slotmask error"}


class Refusal(Exception):
    """A request that failed: `[LABEL] WHY`."""

    def __init__(self, label: str, why: object) -> None:
        super().__init__(f"[{label}] {why}")


@contextmanager
def refusing(label: str) -> Iterator[None]:
    """Turn an error of the broker into a refusal under this label."""
    try:
        yield
    except SsmprovError as error:
        raise Refusal(label, error) from error
