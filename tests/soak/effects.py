"""What the calls of a history did to names: one list of register operations for each name of each model.

Calls under one request id are one request: it has at most one effect, between its first call and its first answer.
A request that was not answered is looked up in the catalogue by the mark of its prompt: what stands there did happen.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from soak.catalogues import MARK, Catalogue
from soak.history import Call, History, Order
from soak.player import saves, sure
from soak.registers import SOME, Operation, Value

Names = dict[tuple[str, str], list[Operation]]
Effect = tuple[str, Operation]


def operations(history: History, catalogues: Mapping[str, Catalogue]) -> Names:
    """The operations on each (model, name)."""
    found: Names = defaultdict(list)
    for calls in history.by_id().values():
        order = calls[0].order
        for name, operation in _of_request(calls, catalogues[order.model]):
            found[order.model, name].append(operation)
    known = list(found)
    for call in history.calls:
        if call.ok and call.order.op == "ckpt.ls":
            for (model, name), operation in _listed(call, known):
                found[model, name].append(operation)
    return found


def _of_request(calls: list[Call], catalogue: Catalogue) -> Iterator[Effect]:
    order = calls[0].order
    for call in calls:
        yield from _seen(call)
    if not saves(order) and order.op != "bridge.command":
        return
    began = min(call.began for call in calls)
    good = [call for call in calls if call.ok]
    base = Operation(began, math.inf, "write", SOME, what=f"{order.op} {calls[0].n}")
    if good:
        first = min(good, key=lambda call: call.ended)
        yield from _done(order, first.result, replace(base, ended=first.ended), catalogue)
    elif not all(call.error is not None and sure(call.error) for call in calls):
        yield from _perhaps(order, base, catalogue)


def mark_of(order: Order) -> str:
    found = MARK.match(order.prompt.encode())
    return found[1].decode() if found else ""


def _made(order: Order, catalogue: Catalogue) -> dict[str, Any] | None:
    """A turn's object and parent as the catalogue knows them."""
    made = catalogue.marks.get(mark_of(order), [])
    return {"object": made[0], "parent": catalogue.steps[made[0]].parent} if made else None


def _done(order: Order, result: dict[str, Any], base: Operation, catalogue: Catalogue) -> Iterator[Effect]:
    """What a request did that was answered with this result."""
    match order.op:
        case "turn":
            yield from _turned(order, result, base)
        case "bridge.bang":
            made = _made(order, catalogue)
            yield from _turned(order, made, base) if made else [(order.args["save"], base)]
        case "bridge.command":
            yield from _commanded(order, base)
        case "ckpt.fork":
            if plain(order.context):
                yield order.context, replace(base, kind="read", value=result["object"])
            for name in dict.fromkeys(order.args["targets"]):
                yield name, _onto(order, replace(base, value=result["object"]))
        case "ckpt.rm":
            for row in result["rows"]:
                yield row["name"], replace(base, kind="swap", expected=row["object"], value=None)
        case "ckpt.import":
            yield order.args["save"], replace(base, kind="swap", expected=None, value=result["object"])
        case "ckpt.replay":
            yield order.args["save"], replace(base, value=result["object"])


def _perhaps(order: Order, base: Operation, catalogue: Catalogue) -> Iterator[Effect]:
    """What a request may have done, or may still do, whose end nobody was told."""
    made = _made(order, catalogue) if order.op in ("turn", "bridge.bang") else None
    if made:
        yield from _turned(order, made, base)
        return
    base = replace(base, sure=False)
    match order.op:
        case "turn" | "bridge.bang":
            save, head = order.args["save"], order.args.get("if_head")
            if head:
                yield save, _swap(base, head)
            else:
                yield save, replace(base, kind="swap", expected=SOME) if order.context == save else base
        case "bridge.command":
            yield from _commanded(order, base)
        case "ckpt.fork":
            for name in dict.fromkeys(order.args["targets"]):
                yield name, _onto(order, base)
        case "ckpt.rm":
            for name in order.args["names"]:
                yield name, replace(base, value=None)
        case "ckpt.import":
            yield order.args["save"], replace(base, kind="swap", expected=None)
        case "ckpt.replay":
            yield order.args["save"], base


def _turned(order: Order, result: dict[str, Any], base: Operation) -> Iterator[Effect]:
    save = order.args["save"]
    done = replace(base, value=result["object"])
    parent = result.get("parent") or None
    if head := order.args.get("if_head"):
        yield save, _swap(done, head)
    elif order.context == save:
        yield save, replace(done, kind="swap", expected=parent)
    else:
        yield save, done
        if plain(order.context) and base.ended < math.inf:
            yield order.context, replace(base, kind="read", value=parent)


def _swap(base: Operation, head: str) -> Operation:
    return replace(base, kind="swap", expected=None if head == "none" else head)


def _onto(order: Order, base: Operation) -> Operation:
    """A fork's effect on one of its targets."""
    if not order.args.get("overwrite"):
        return replace(base, kind="swap", expected=None)
    head = order.args.get("if_head")
    return _swap(base, head) if head else base


def _commanded(order: Order, base: Operation) -> Iterator[Effect]:
    word, _, name = order.prompt.partition(" ")
    if word == "/save":
        yield name, base


# -- what a call saw of names that it did not move


def _seen(call: Call) -> Iterator[Effect]:
    if not call.answered:
        return
    order = call.order
    saw = Operation(call.began, call.ended, "read", None, what=f"{order.op} {call.n}")
    if call.error is None:
        head = ""
        if order.op == "ckpt.show":
            head = call.result["row"]["object"]
        elif order.op == "ckpt.log":
            head = call.result["steps"][0]["object"]
        if head and plain(order.context):
            yield order.context, replace(saw, value=head)
        return
    details = call.error.details
    if call.error.code == "not_found" and (name := details.get("name")):
        yield name, saw
    elif call.error.code == "conflict" and "head" in details:
        yield details.get("name") or order.args["save"], replace(saw, value=details["head"] or None)
    elif call.error.code == "worker_lost" and "head" in details and order.args.get("save"):
        yield order.args["save"], replace(saw, value=details["head"] or None)


def _listed(call: Call, known: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Operation]]:
    """A page shows each of its names where it stands, and that the others within its range are not there."""
    order = call.order
    rows: dict[str, Value] = {row["name"]: row["object"] for row in call.result["rows"]}
    prefix = order.args.get("prefix", "")
    last = max(rows, default="") if call.result.get("more") else None
    saw = Operation(call.began, call.ended, "read", None, what=f"ckpt.ls {call.n}")
    for model, name in known:
        within = name.startswith(prefix) and (last is None or name <= last) and not name.startswith("@")
        if model == order.model and within:
            yield (model, name), replace(saw, value=rows.get(name))


def plain(reference: str) -> bool:
    """Whether a reference is a name, and not a step back from one, an object, or nothing."""
    return bool(reference) and "~" not in reference and not reference.startswith(("#", "@"))
