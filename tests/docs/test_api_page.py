"""The reference in docs/api.md is what signatures and docstrings say.

After a change of a client's method, a result or an error, write it anew:

    .venv/bin/python -P tests/docs/test_api_page.py
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

import ssmprov
from clients.aio import AsyncStream
from clients.requests import TurnOptions
from ssmprov import ops
from ssmprov.errors import BY_CODE, SsmprovError

if TYPE_CHECKING:
    from cluster import Cluster

PAGE = Path(__file__).parents[2] / "docs/api.md"
MARK = "<!-- api: the rest is written by tests/docs/test_api_page.py -->\n"
FOR_STREAMS = {"open", "forget", "consumed"}
"""Methods of a client that only its streams call."""


def reference() -> Iterator[str]:
    client, asynchronous = ssmprov.Client, ssmprov.AsyncClient
    yield from whole(client)
    yield "## The options of a turn\n"
    yield from prose(TurnOptions)
    yield from prose(ops.Turn)
    yield from whole(ssmprov.Stream)
    yield from heading(asynchronous)
    blocking = dict(members(client))
    same = [name for name, each in members(asynchronous) if alike(each, blocking[name])]
    plain = [name for name in same if not inspect.iscoroutinefunction(getattr(asynchronous, name))]
    links = ", ".join(f"[`{name}`](#client{name})" for name in same)
    yield f"It has the methods of `Client`, to be awaited (but not `{'`, `'.join(plain)}`): {links}. These differ:\n"
    for name, each in members(asynchronous):
        if name not in same:
            yield from entry(asynchronous, name, each)
    yield from whole(AsyncStream)
    yield "## Results\n"
    found = [returned(each) for _, each in members(client)]
    for kind in structs([ssmprov.Reply, ssmprov.Seen, *found]):
        yield from result(kind)
    yield from heading(ssmprov.Look)
    yield "## Errors\n"
    yield "| class | derived from | code | exit code | may a retry help? | |\n|---|---|---|---|---|---|"
    for error in BY_CODE.values():
        yield error_row(error)


def whole(kind: type) -> Iterator[str]:
    yield from heading(kind)
    for name, each in members(kind):
        yield from entry(kind, name, each)


def heading(kind: type) -> Iterator[str]:
    yield f"## `{kind.__name__}`\n"
    own = inspect.signature(kind)
    if not any(name.startswith("_") or name in ("source", "call") for name in own.parameters):
        yield from code(f"{kind.__name__}{parameters(own)}")
    yield from prose(kind)


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, in the order in which they are written."""
    seen = set()
    for each in kind.__mro__:
        for name, value in vars(each).items():
            if not name.startswith("_") and name not in seen | FOR_STREAMS and (callable(value) or is_property(value)):
                seen.add(name)
                yield name, value


def is_property(value: object) -> bool:
    return isinstance(value, property)


def entry(kind: type, name: str, each: Any) -> Iterator[str]:
    yield f"### `{kind.__name__}.{name}`\n"
    if is_property(each):
        yield from code(f"{name} -> {plain_type(inspect.signature(each.fget).return_annotation)}")
    else:
        own = inspect.signature(each)
        word = "await " if inspect.iscoroutinefunction(each) else ""
        yield from code(f"{word}{name}{parameters(own)} -> {plain_type(own.return_annotation)}")
    yield from prose(each)


def parameters(own: inspect.Signature) -> str:
    """The parameters of a call, one per line if they are long."""
    words, after_star = [], False
    for each in own.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not after_star:
            words.append("*")
            after_star = True
        word = f"{each.name}: {plain_type(each.annotation)}"
        words.append(word if each.default is each.empty else f"{word} = {each.default!r}")
    line = f"({', '.join(words)})"
    return line if len(line) < 90 else "(\n    " + ",\n    ".join(words) + ",\n)"


def plain_type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])", "", text).replace("NoneType", "None")


def code(text: str) -> Iterator[str]:
    yield f"```python\n{text}\n```\n"


def prose(each: Any) -> Iterator[str]:
    for paragraph in inspect.cleandoc(each.__doc__ or "").split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"


def alike(one: Any, other: Any) -> bool:
    """Whether two methods take the same and say the same of it."""
    mine, theirs = inspect.signature(one), inspect.signature(other)
    return (one.__doc__, parameters(mine), plain_type(mine.return_annotation)) == (
        other.__doc__,
        parameters(theirs),
        plain_type(theirs.return_annotation),
    )


def returned(method: Any) -> Any:
    told = inspect.signature(method).return_annotation
    return eval(told, vars(inspect.getmodule(method))) if isinstance(told, str) else told


def structs(found: list[Any], seen: list[Any] | None = None) -> list[type]:
    """The structs and named tuples among some types and in their fields, each once."""
    seen = [] if seen is None else seen
    for each in found:
        if not isinstance(each, type) or not (issubclass(each, msgspec.Struct) or hasattr(each, "_fields")):
            structs(list(typing.get_args(each)), seen)
        elif each not in seen:
            seen.append(each)
            structs(list(typing.get_type_hints(each).values()), seen)
    return seen


def result(kind: Any) -> Iterator[str]:
    yield f"### `{kind.__name__}`\n"
    yield from prose(kind)
    hints = typing.get_type_hints(kind)
    yield "".join(f"- `{name}: {plain_type(hint)}`\n" for name, hint in hints.items())
    for name, each in vars(kind).items():
        if is_property(each):
            yield f"`{name}`: " + "".join(prose(each))


def error_row(error: type[SsmprovError]) -> str:
    cells = (
        f"`{error.__name__}`",
        f"`{error.__mro__[1].__name__}`",
        f"[`{error.code}`](recovery.md#{error.code})",
        str(error.exit_code),
        "yes" if error.retry else "no",
        " ".join((error.__doc__ or "").split()),
    )
    return f"| {' | '.join(cells)} |"


def written(page: str) -> str:
    """The page with its reference written anew."""
    lead, mark, _ = page.partition(MARK)
    assert mark, f"the page has lost its mark: {MARK}"
    return f"{lead}{mark}\n" + "\n".join(reference()).rstrip("\n") + "\n"


def test_the_page_has_every_method_result_and_error() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), f"write the page anew: see {__file__}"


def test_another_method_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def sing(self: ssmprov.Client, song: str, *, loudly: bool = False) -> ssmprov.ops.Warm:
        """Sing a song."""
        raise NotImplementedError

    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(ssmprov.Client, "sing", sing, raising=False)
    assert "```python\nsing(song: str, *, loudly: bool = False) -> Warm\n```\n\nSing a song.\n" in written(page)


def test_the_examples_work(talk: Cluster) -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8").partition(MARK)[0], re.DOTALL)
    assert len(examples) == 3
    for example in examples:
        done = subprocess.run(
            [sys.executable, "-P", "-W", "error", "-c", example],
            env=talk.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), example


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
