"""What is asked of a catalogue all day reads the rows that it needs: no statement goes through a whole table."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from checkpoint_toy import say

from ssmprov.errors import NotFound
from ssmprov.names import Ref, parse_ref
from workers.checkpoints import RequestKey, Store

ASKED: dict[str, Callable[[Store], object]] = {
    "ls": lambda store: store.ls(after="a", limit=2),
    "ls with a prefix": lambda store: store.ls("b", limit=2),
    "resolve": lambda store: store.resolve(Ref("b", 1)),
    "resolve an id": lambda store: store.resolve(parse_ref("#" + store.resolve(Ref("b"))[:12])),
    "no such name": lambda store: store.resolve(Ref("bb")),
    "show": lambda store: store.show(Ref("b")),
    "text": lambda store: store.text(Ref("b")),
    "log": lambda store: store.log(Ref("b"), limit=2),
    "tree of a root": lambda store: store.tree(Ref("b"), limit=2),
    "load": lambda store: store.load(Ref("b")),
    "hold": lambda store: store.hold(store.resolve(Ref("b"))).__enter__(),
    "save": lambda store: say(store, "b", b"more", request=b"1" * 16),
    "fork": lambda store: store.fork(Ref("a"), ["b", "new"], overwrite=True, request=RequestKey(b"2" * 16, 60)),
    "pin": lambda store: store.pin("b", "toy/1"),
    "pins": lambda store: store.pins(),
    "rm": lambda store: store.remove(["b"]),
}
COUNTED = "SELECT count(*) FROM names"
"""For the limit on names: once in `SWEEP_EVERY` new ones."""

SMALL = ("SCAN up", "MATERIALIZE up", "SCAN json_each", "SCAN CONSTANT ROW", "SCAN n USING INDEX names_pinned")
"""What a statement goes through that is no larger than what was asked for: `up` is a lineage."""


@pytest.mark.parametrize("what", ASKED)
def test_no_table_is_read_through(store: Store, what: str) -> None:
    for name in ("a", "b", "c"):
        for part in (b"one ", b"two ", b"three "):
            say(store, name, name.encode() + part)
    connection = store._catalogue._connection
    statements: set[str] = set()
    connection.set_trace_callback(statements.add)
    with contextlib.suppress(NotFound):
        ASKED[what](store)
    connection.set_trace_callback(None)
    asked = [each for each in statements if each.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))]
    assert asked
    for statement in asked:
        if statement == COUNTED:
            continue
        plan = [row[3] for row in store._catalogue.run(f"EXPLAIN QUERY PLAN {statement}")]
        bad = [step for step in plan if step.startswith(("SCAN", "MATERIALIZE")) and not step.startswith(SMALL)]
        assert not bad, (plan, statement)
