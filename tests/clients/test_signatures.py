"""What `help()` shows of a method is what a call takes: checked by calling it, with no broker there."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clients import Client, requests
from clients.aio import AsyncClient
from clients.calls import Call
from ssmprov import operations, ops
from ssmprov.errors import SsmprovError
from ssmprov.probes import Look

FACES = [Client, AsyncClient]
SILENT = {"close", "open", "forget", "consumed", "cancel", "stream"}
"""They end before an answer comes, so no error tells that there is no broker."""

VALUES: dict[str, Any] = {
    "args": ops.Show(),
    "box": object(),
    "call": Call("status", ops.Status()),
    "create": True,
    "dry_run": True,
    "headers": True,
    "if_head": "ab" * 32,
    "limit": 3,
    "look": Look(),
    "max_chars": 5,
    "max_tokens": 5,
    "mode": "drop",
    "names": ["a"],
    "on": ["talk/0"],
    "on_place": print,
    "on_progress": print,
    "on_text": print,
    "op": "ckpt.show",
    "operation": operations.SHOW,
    "or_empty": True,
    "overwrite": True,
    "payload": b"",
    "pieces": 1,
    "reply_tokens": 2,
    "request_id": bytes(16),
    "reserved": True,
    "seed": 1,
    "since_root": True,
    "spread": True,
    "targets": ["b"],
    "top": 1,
    "trust": True,
    "ttl_s": 1.0,
    "values": {"temp": 1.0},
}


def public(face: type[Any]) -> list[str]:
    return [name for name, each in vars(face).items() if not name.startswith("_") and callable(each)]


CASES = [(face, name) for face in FACES for name in public(face)]


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    return VALUES | {"path": file}


def called(face: type[Any], name: str, tmp_path: Path, /, *given: Any, **named: Any) -> None:
    """One call of a method of a client whose broker is not there."""
    endpoint = f"ipc://{tmp_path}/nobody"
    if face is Client:
        with Client(endpoint, home=tmp_path, timeout_s=0.05) as client:
            getattr(client, name)(*given, **named)
        return

    async def call() -> None:
        async with AsyncClient(endpoint, home=tmp_path, timeout_s=0.05) as client:
            found = getattr(client, name)(*given, **named)
            if inspect.isawaitable(found):
                await found

    asyncio.run(call())


def named(told: inspect.Signature, values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for each in told.parameters.values():
        if each.name != "self":
            yield each.name, values.get(each.name, "x")


@pytest.mark.parametrize(("face", "name"), CASES)
def test_every_parameter_that_is_shown_is_taken(
    face: type[Any], name: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    told = inspect.signature(getattr(face, name))
    assert not any(each.kind is each.VAR_KEYWORD for each in told.parameters.values())
    given = dict(named(told, values))
    if name in SILENT:
        called(face, name, tmp_path, **given)
    else:
        with pytest.raises(SsmprovError):
            called(face, name, tmp_path, **given)


@pytest.mark.parametrize(("face", "name"), CASES)
def test_a_keyword_that_is_not_shown_is_refused(
    face: type[Any], name: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    told = inspect.signature(getattr(face, name))
    required = {
        key: value for key, value in named(told, values) if told.parameters[key].default is inspect.Parameter.empty
    }
    with pytest.raises(TypeError, match="unexpected keyword argument 'unheard_of'"):
        called(face, name, tmp_path, **required, unheard_of=1)


@pytest.mark.parametrize(("face", "name"), CASES)
def test_what_is_shown_without_a_default_is_needed_and_keywords_go_by_name(
    face: type[Any], name: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    told = inspect.signature(getattr(face, name))
    given = dict(named(told, values))
    required = [key for key in given if told.parameters[key].default is inspect.Parameter.empty]
    for key in required:
        rest = {other: given[other] for other in required if other != key}
        with pytest.raises(TypeError, match=f"missing 1 required .*'{key}'"):
            called(face, name, tmp_path, **rest)
    by_place = [given[key] for key in given if told.parameters[key].kind is not inspect.Parameter.KEYWORD_ONLY]
    with pytest.raises(TypeError, match="positional argument"):
        called(face, name, tmp_path, *by_place, "one too many")


@pytest.mark.parametrize("name", [name for name in public(Client) if hasattr(requests, name)])
def test_both_faces_show_what_the_plan_takes(name: str) -> None:
    one, other = (inspect.signature(getattr(face, name)) for face in FACES)
    assert one.parameters == other.parameters
    plan = inspect.signature(getattr(requests, name)).parameters
    shown = {key: each.default for key, each in one.parameters.items()}
    if name in ("turn", "export", "import_"):
        return
    assert {key: each.default for key, each in plan.items()} == {k: v for k, v in shown.items() if k != "self"}
    assert one.return_annotation == other.return_annotation


def test_help_shows_the_reference_first_and_what_comes_back() -> None:
    assert str(inspect.signature(Client.show)) == "(self, /, ref: str, *, model: str = '') -> ssmprov.ops.Shown"
    assert Client.show.__doc__ == requests.show.__doc__
    assert Client.show.__annotations__["return"] is ops.Shown
    assert (Client.show.__qualname__, AsyncClient.show.__qualname__) == ("Client.show", "AsyncClient.show")


def test_the_methods_of_the_asyncio_client_are_coroutines() -> None:
    plain = {name for name in public(AsyncClient) if not inspect.iscoroutinefunction(getattr(AsyncClient, name))}
    assert plain == {"cancel", "open", "forget", "consumed"}
    assert not any(inspect.iscoroutinefunction(getattr(Client, name)) for name in public(Client))
