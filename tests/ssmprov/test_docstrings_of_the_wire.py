"""Every message of the wire, and every argument and result of an operation, says what each of its fields means."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ssmprov import errors, ops, wire

KINDS = [
    kind
    for module in (wire, ops, errors)
    for kind in vars(module).values()
    if isinstance(kind, type)
    and (issubclass(kind, msgspec.Struct) or hasattr(kind, "_fields"))
    and kind.__module__ == module.__name__
]
PLAIN = {"id", "attempt", "epoch", "model"}
"""What many messages have, and the module's docstring explains."""


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_and_its_fields_are_explained(kind: Any) -> None:
    text = vars(kind).get("__doc__") or ""
    assert text
    assert not [name for name in set(kind.__annotations__) - PLAIN if f"`{name}`" not in text]
