"""The checker of what is kept sees a lost checkpoint, a turn that happened twice, a text that was never said."""

from __future__ import annotations

import math
from typing import Any

import pytest

from soak.catalogues import Catalogue, Step
from soak.conductor import check
from soak.history import Call, History, Order
from ssmprov.errors import Problem

COUNT = iter(range(10**6))


def say(
    mark: str, parent: str, made: str, *, save: str = "a", context: str = "a", at: float = 0.0, **keys: Any
) -> Call:
    """A turn on `talk` that saved, was answered between `at` and `at` + 1, and said what its script says."""
    number = next(COUNT)
    order = Order(f"{number:032x}", "turn", "talk", context, {"save": save}, f"<{mark}>[SHORT]:")
    call = Call(f"c0.0.{number}", "c0.0.1", order, began=at, ended=at + 1, text="hello!")
    call.result = {"object": made, "parent": parent, "stop": "end"}
    for key, value in keys.items():
        setattr(call, key, value)
    return call


def lost(call: Call, **details: Any) -> Call:
    call.error = Problem("worker_lost", "worker talk/0 was lost in mid-turn", details=details)
    call.result, call.text = {}, ""
    return call


def step(mark: str, parent: str, made: str, text: str = "hello!") -> Step:
    return Step(made, parent, f"<{mark}>[SHORT]:{text}".encode())


def asked(op: str, at: float, context: str = "", result: Any = None, **args: Any) -> Call:
    number = next(COUNT)
    order = Order(f"{number:032x}", op, "talk", context, args)
    return Call(f"c1.0.{number}", "c1.0.1", order, began=at, ended=at + 1, result=result or {})


def findings(calls: list[Call], steps: list[Step], **names: str) -> list[str]:
    catalogue = Catalogue(names=dict(names))
    for one in steps:
        catalogue.add(one)
    rows = [{"name": name, "object": made} for name, made in names.items()]
    look = asked("ckpt.ls", 1000.0, result={"rows": rows})
    return check(History([*calls, look]), {"talk": catalogue, "tiny": Catalogue()})


ONE = say("c1", "", "o1")
TWO = say("c2", "o1", "o2", at=2)
S1, S2 = step("c1", "", "o1"), step("c2", "o1", "o2")


def test_what_was_told_is_what_is_there() -> None:
    assert findings([ONE, TWO], [S1, S2], a="o2") == []


def test_a_turn_of_a_lost_worker_may_have_happened_or_not() -> None:
    unknown = lost(say("c2", "o1", "o2", at=2), committed="unknown")
    assert findings([ONE, unknown], [S1, S2], a="o2") == []
    assert findings([ONE, unknown], [S1], a="o1") == []


def test_a_killed_clients_turn_may_happen_late() -> None:
    gone = say("c2", "o1", "o2", at=2, ended=math.inf)
    assert findings([ONE, gone, asked("ckpt.show", 5, "a", {"row": {"object": "o1"}})], [S1, S2], a="o2") == []


def test_a_resent_turn_has_one_effect() -> None:
    again = say("c2", "o1", "o2", at=4)
    again.order = TWO.order
    assert findings([ONE, TWO, again], [S1, S2], a="o2") == []


def test_what_is_collected_after_a_name_was_removed_is_no_loss() -> None:
    gone = asked("ckpt.rm", 4, result={"rows": [{"name": "a", "object": "o2"}]}, names=["a"])
    assert findings([ONE, TWO, gone, asked("ckpt.gc", 6)], []) == []


def test_a_diary_holds_its_turns_in_order_of_time() -> None:
    beside = say("c2", "o1", "o2", at=0.5)
    assert findings([ONE, beside], [S1, S2], a="o2") == []


ODD = Step("o2", "o1", b"<c2>[SHORT]:hello?")
BAD: dict[str, tuple[list[Call], list[Step], dict[str, str], str]] = {
    "an acknowledged checkpoint is missing": ([ONE, TWO], [S1], {"a": "o1"}, "nothing was collected since"),
    "it is missing after a collection, though its name stood": (
        [ONE, TWO, asked("ckpt.gc", 4)], [S1], {"a": "o1"}, "is no register",
    ),
    "a name went back": ([ONE, TWO], [S1, S2], {"a": "o1"}, "is no register"),
    "a name is gone": ([ONE, TWO], [S1, S2], {}, "is no register"),
    "another text than was said": ([ONE, TWO], [S1, ODD], {"a": "o2"}, "is not its prompt and reply"),
    "another reply than the script's": (
        [ONE, say("c2", "o1", "o2", at=2, text="hello?")], [S1, ODD], {"a": "o2"}, "script",
    ),
    "another parent than was told": (
        [ONE, say("c2", "", "o2", save="b", context="", at=2)], [S1, S2], {"a": "o1", "b": "o2"}, "stands after #o1",
    ),
    "a turn happened twice": ([ONE, TWO], [S1, S2, step("c2", "o2", "o3")], {"a": "o3"}, "has had 2 effects"),
    "told that it did not happen, and it did": (
        [ONE, lost(say("c2", "o1", "o2", at=2), committed=False)], [S1, S2], {"a": "o2"}, "took effect",
    ),
    "two writers won": (
        [ONE, TWO, say("c3", "o1", "o3", at=2)], [S1, S2, step("c3", "o1", "o3")], {"a": "o3"}, "register",
    ),
    "a fork forked what was there before": (
        [ONE, TWO, asked("ckpt.fork", 4, "a", {"object": "o1"}, targets=["b"])], [S1, S2], {"a": "o2", "b": "o1"},
        "a is no",
    ),
    "a diary lost a turn that it had acknowledged": (
        [ONE, TWO, say("c3", "o2", "o3", at=4)], [S1, S2, step("c3", "o1", "o3")], {"a": "o3"}, "<c2> 0 times",
    ),
    "a text was shown that is another": (
        [ONE, Call("c1.0.1", "l", Order("ff" * 16, "ckpt.show", "talk", "a", {"text": True}), False, 4, 5,
                   {"row": {"object": "o1"}}, "<c1>[SHORT]:hello?")], [S1], {"a": "o1"}, "showed another text",
    ),
    "a fault of ours": (
        [ONE, Call("c1.0.2", "l", Order("fe" * 16, "ckpt.tree", "talk"), error=Problem("internal", "x"), ended=1)],
        [S1], {"a": "o1"}, "internal: x",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_each_broken_promise_is_seen(name: str) -> None:
    calls, steps, names, says = BAD[name]
    found = findings(calls, steps, **names)
    assert any(says in finding for finding in found), found


def test_a_client_that_gave_up_is_seen_but_not_the_bridges() -> None:
    gone = Problem("unreachable", "the broker went away and has not come back")
    call = Call("c1.0.3", "l", Order("fd" * 16, "ckpt.tree", "talk"), error=gone, ended=1)
    assert any("unreachable" in finding for finding in findings([call], []))
    call.order.op, call.order.prompt = "bridge.command", "/t"
    assert findings([call], []) == []


def test_two_answers_under_one_id_are_seen() -> None:
    again = say("c2", "o1", "o9", at=4)
    again.order = TWO.order
    assert any("in 2 ways" in finding for finding in findings([ONE, TWO, again], [S1, S2], a="o2"))
