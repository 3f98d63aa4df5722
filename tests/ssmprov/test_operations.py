"""The operations: their arguments, and which names each one holds."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ssmprov import operations, ops, wire
from ssmprov.errors import BadRequest
from ssmprov.wire import WireError

OBJECT = "#" + "ab" * 32


def request(op: str, context: str = "", **args: Any) -> wire.Request:
    return wire.Request(wire.new_id(), op, context=context, args=wire.pack(args))


def held(op: str, context: str = "", **args: Any) -> tuple[set[str], set[str], bool]:
    """What an operation takes shared and exclusive, and whether it has a durable effect."""
    asked = request(op, context, **args)
    decoded = operations.decode_args(asked)
    shared, exclusive = operations.locks(asked, decoded)
    assert not shared & exclusive
    return set(shared), set(exclusive), operations.saves(asked, decoded)


LOCKS: list[tuple[str, str, dict[str, Any], set[str], set[str], bool]] = [
    ("turn", "", {}, set(), set(), False),
    ("turn", "a", {}, {"a"}, set(), False),
    ("turn", "a~2", {}, {"a"}, set(), False),
    ("turn", OBJECT, {}, set(), set(), False),
    ("turn", "", {"save": "b"}, set(), {"b"}, True),
    ("turn", "a", {"save": "b"}, {"a"}, {"b"}, True),
    ("turn", "a", {"save": "a"}, set(), {"a"}, True),
    ("turn", "a~1", {"save": "a"}, set(), {"a"}, True),
    ("turn", OBJECT, {"save": "b"}, set(), {"b"}, True),
    ("turn", "@bridge/6502", {"save": "@bridge/6502"}, set(), {"@bridge/6502"}, True),
    ("ckpt.ls", "", {}, set(), set(), False),
    ("ckpt.show", "a", {}, set(), set(), False),
    ("ckpt.log", "a", {}, set(), set(), False),
    ("ckpt.tree", "", {}, set(), set(), False),
    ("ckpt.tree", "a", {}, set(), set(), False),
    ("ckpt.fork", "a", {"targets": ["b", "c"]}, {"a"}, {"b", "c"}, True),
    ("ckpt.fork", "a~3", {"targets": ["a", "b"]}, set(), {"a", "b"}, True),
    ("ckpt.fork", OBJECT, {"targets": ["b"]}, set(), {"b"}, True),
    ("ckpt.move", "a", {"worker": "m/0"}, set(), {"a"}, True),
    ("ckpt.move", "a", {}, set(), {"a"}, True),
    ("ckpt.rm", "", {"names": ["a", "b"]}, set(), {"a", "b"}, True),
    ("ckpt.export", "a", {}, {"a"}, set(), False),
    ("ckpt.export", OBJECT, {}, set(), set(), False),
    ("ckpt.import", "", {"save": "a", "bytes": 1}, set(), {"a"}, True),
    ("ckpt.verify", "", {}, set(), set(), False),
    ("ckpt.repair", "", {}, set(), set(), False),
    ("ckpt.gc", "", {}, set(), set(), False),
    ("ckpt.replay", "a", {}, {"a"}, set(), False),
    ("ckpt.replay", "a", {"save": "b"}, {"a"}, {"b"}, True),
    ("ckpt.replay", "", {"prime": True, "save": "b"}, set(), {"b"}, True),
    ("probe", "", {}, set(), set(), False),
    ("probe", "a", {"reply_tokens": 5}, set(), set(), False),
    ("settings.ls", "", {}, set(), set(), False),
    ("settings.show", "", {"name": "x"}, set(), set(), False),
    ("settings.set", "", {"name": "x", "values": {"temp": 1}}, set(), set(), True),
    ("status", "", {}, set(), set(), False),
    ("settle", "", {"request": b"0" * 16, "problem": None, "save": "a"}, set(), set(), True),
    ("warm", "a", {}, set(), set(), False),
]


@pytest.mark.parametrize(("op", "context", "args", "shared", "exclusive", "saves"), LOCKS)
def test_what_is_read_is_shared_and_what_moves_is_exclusive(
    op: str, context: str, args: dict[str, Any], shared: set[str], exclusive: set[str], saves: bool
) -> None:
    assert held(op, context, **args) == (shared, exclusive, saves)


def test_every_operation_stands_in_the_table() -> None:
    assert {row[0] for row in LOCKS} == set(operations.OPERATIONS)


@pytest.mark.parametrize(
    "op", sorted(name for name, known in operations.OPERATIONS.items() if known.context == "needed")
)
def test_what_needs_a_context_says_so(op: str) -> None:
    args = {"targets": ["b"]} if op == "ckpt.fork" else {}
    with pytest.raises(BadRequest, match=f"{op} needs a context"):
        operations.decode_args(request(op, **args))


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"there is no operation 'ckpt\.mend'"):
        operations.decode_args(request("ckpt.mend"))


@pytest.mark.parametrize("bad", ["../x", ".a", "a b", "a~1", "x" * 129])
def test_every_name_is_checked(bad: str) -> None:
    for op, context, args in [
        ("turn", "", {"save": bad}),
        ("ckpt.fork", "a", {"targets": ["b", bad]}),
        ("ckpt.rm", "", {"names": [bad]}),
        ("ckpt.import", "", {"save": bad, "bytes": 1}),
        ("ckpt.replay", "a", {"save": bad}),
    ]:
        with pytest.raises(BadRequest, match="is not a valid name"):
            operations.decode_args(request(op, context, **args))
    if "~" not in bad:
        with pytest.raises(BadRequest, match="is not a valid name"):
            operations.decode_args(request("turn", bad))


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("turn", {"max_tokens": -1}),
        ("turn", {"max_tokens": ops.MAX_TOKENS + 1}),
        ("turn", {"max_chars": ops.MAX_CHARS + 1}),
        ("turn", {"seed": 2**63}),
        ("turn", {"seed": -1}),
        ("turn", {"if_head": "a" * 65}),
        ("turn", {"save": "x" * 201}),
        ("turn", {"values": {"temp": "hot"}}),
        ("turn", {"stream": 1}),
        ("ckpt.fork", {}),
        ("ckpt.fork", {"targets": ["a"] * 257}),
        ("ckpt.rm", {"names": "a"}),
        ("ckpt.ls", {"limit": 0}),
        ("ckpt.ls", {"limit": 1001}),
        ("ckpt.log", {"limit": 1001}),
        ("ckpt.show", {"offset": -1}),
        ("ckpt.import", {"save": "a"}),
        ("ckpt.import", {"save": "a", "bytes": 2**53}),
        ("probe", {"topk": 0}),
        ("probe", {"top": 65}),
        ("probe", {"reply_tokens": ops.MAX_PROBE_REPLY + 1}),
        ("probe", {"masked": [-1]}),
        ("probe", {"masked": [ops.MAX_SLOT + 1]}),
        ("probe", {"masked": "0"}),
        ("settle", {"request": b"short", "problem": None}),
    ],
)
def test_arguments_are_typed_and_bounded(op: str, args: dict[str, Any]) -> None:
    with pytest.raises(WireError, match="the arguments are wrong"):
        operations.decode_args(request(op, "a", **args))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"routing": "top2"}, "routing 'top2' is not valid: use softmax, top1, topk"),
        ({"where": "write"}, "where 'write' is not valid: use read, content_read_only, slotspace_only"),
    ],
)
def test_a_reading_that_no_model_knows_is_refused_with_those_there_are(args: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(message)):
        operations.decode_args(request("probe", "", **args))


def test_a_fork_needs_a_name_for_its_copy() -> None:
    with pytest.raises(BadRequest, match="at least one name"):
        operations.decode_args(request("ckpt.fork", "a", targets=[]))


@pytest.mark.parametrize(
    ("op", "context", "args"),
    [
        ("ckpt.move", OBJECT, {"worker": "m/0"}),
        ("ckpt.move", "a~1", {"worker": "m/0"}),
        ("ckpt.rm", "", {"names": []}),
        ("ckpt.import", "", {"save": "", "bytes": 1}),
    ],
)
def test_what_moves_a_name_needs_one(op: str, context: str, args: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="name"):
        operations.decode_args(request(op, context, **args))


def test_arguments_of_a_newer_client_are_ignored_where_unknown() -> None:
    assert operations.decode_args(request("turn", "a", save="b", mood="good")) == ops.Turn(save="b")
