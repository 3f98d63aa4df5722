"""The tables of operations in docs/protocol.md are those of `ssmprov.operations`.

After a change of an operation, its arguments or its result, write them anew:

    .venv/bin/python -P tests/ssmprov/test_protocol_page.py
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ssmprov import operations
from ssmprov.keys import Role
from ssmprov.operations import Operation

PAGE = Path(__file__).parents[2] / "docs/protocol.md"
BLOCK = re.compile(r"(<!-- operations -->\n).*?(<!-- end of operations -->)", re.DOTALL)
EFFECTS = {"none": "no", "if_saved": "with `save`", "always": "yes", "upkeep": "upkeep"}


def rows(known: dict[str, Operation[Any, Any]]) -> Iterator[str]:
    yield "| operation | role | context | arguments (default) | result | lasting effect |"
    yield "|---|---|---|---|---|---|"
    for name, operation in known.items():
        role = "the broker only" if operation.internal else f"`{operation.role}`"
        raised = [f"`{role}` with `{argument}`" for argument, role in operation.raised_by.items()]
        context = operation.context + (f" (not with `{operation.waived_by}`)" if operation.waived_by else "")
        result = "nil" if operation.result is type(None) else operation.result.__name__
        cells = (f"`{name}`", "; ".join([role, *raised]), context, fields(operation.args), result)
        yield f"| {' | '.join([*cells, EFFECTS[operation.effect]])} |"
    yield ""
    yield "| type | fields (default) |"
    yield "|---|---|"
    for kind in kinds([operation.result for operation in known.values()]):
        yield f"| {kind.__name__} | {fields(kind)} |"


def fields(kind: Any) -> str:
    """The fields of a struct or of a named tuple, with their defaults."""
    if not issubclass(kind, msgspec.Struct):
        return ", ".join(f"`{name}`" for name in kind._fields)
    return ", ".join(f"`{field.name}`{default(field)}" for field in msgspec.structs.fields(kind))


def default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.NODEFAULT:
        return ""
    if isinstance(value, msgspec.Raw):
        value = msgspec.msgpack.decode(value)
    word = "nil" if value is None else str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    return f" ({word})"


def kinds(found: list[Any], seen: set[Any] | None = None) -> Iterator[Any]:
    """The structs and named tuples of the results, each once, those inside a type after it."""
    seen = set() if seen is None else seen
    for kind in found:
        if (
            isinstance(kind, type)
            and (issubclass(kind, msgspec.Struct) or hasattr(kind, "_fields"))
            and kind not in seen
        ):
            seen.add(kind)
            yield kind
            yield from kinds(list(typing.get_type_hints(kind).values()), seen)
        else:
            yield from kinds(list(typing.get_args(kind)), seen)


def written(known: dict[str, Operation[Any, Any]], page: str) -> str:
    """The page with its tables written anew."""
    table = "\n".join(rows(known))
    return BLOCK.sub(lambda found: f"{found[1]}{table}\n{found[2]}", page)


def test_the_page_has_every_operation_with_its_role_arguments_and_result() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert BLOCK.search(page)
    assert page == written(operations.OPERATIONS, page), f"write the tables anew: see {__file__}"


class Other(msgspec.Struct):
    size: int = 3


@pytest.mark.parametrize(
    "change", [{"role": Role.ADMIN}, {"args": Other}, {"result": Other}, {"context": "unused"}, {"effect": "always"}]
)
def test_another_role_argument_or_result_changes_the_page(change: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    changed = dataclasses.replace(operations.SHOW, **change)
    assert page != written(operations.OPERATIONS | {changed.name: changed}, page)


def test_an_operation_that_is_missing_changes_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page != written({k: v for k, v in operations.OPERATIONS.items() if k != "probe"}, page)


if __name__ == "__main__":
    PAGE.write_text(written(operations.OPERATIONS, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
