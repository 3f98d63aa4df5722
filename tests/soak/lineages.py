"""What was acknowledged, held against the stores: nothing missing, nothing twice, every text as it was said."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from soak.catalogues import Catalogue
from soak.choices import SCRIPT, SCRIPTED
from soak.effects import Names, mark_of
from soak.history import Call, History
from soak.player import saves, sure
from soak.registers import Operation

TURNS = frozenset({"turn", "bridge.say", "bridge.bang"})
CUT = frozenset({"cancelled", "limit"})


def check(history: History, catalogues: Mapping[str, Catalogue], names: Names) -> list[str]:
    """A sentence for each promise about what is kept that was broken."""
    faults: list[str] = []
    by_id = history.by_id()
    for model, catalogue in catalogues.items():
        mine = [calls for calls in by_id.values() if calls[0].order.model == model]
        collected = _last_collection(history, model)
        for calls in mine:
            faults += _request(calls, catalogue, collected)
        faults += _twice(catalogue)
        faults += _diaries(mine, catalogue, names, model)
    return faults


def _request(calls: list[Call], catalogue: Catalogue, collected: float) -> Iterator[str]:
    order = calls[0].order
    good = [call for call in calls if call.ok]
    who = f"{order.op} {calls[0].n}"
    closed = any(call.order.cancel_mode == "close" for call in calls)
    for call in good:
        if not closed:
            yield from _said(call)
        yield from _shown(call, catalogue)
    if good and order.op in ("bridge.say", "bridge.bang"):
        made = catalogue.marks.get(mark_of(order), [""])[0]
        yield from _kept(who, good[0], made, catalogue, collected)
    if not saves(order):
        return
    if len({(call.result.get("object", ""), call.text) for call in good}) > 1:
        yield f"{who} was answered in {len(good)} ways under one request id"
    if good and order.op == "turn":
        yield from _kept(who, good[0], good[0].result["object"], catalogue, collected)
    elif all(call.error is not None and sure(call.error) for call in calls) and catalogue.marks.get(mark_of(order)):
        yield f"{who} was told {calls[-1].error.code if calls[-1].error else ''}, and took effect"


def _kept(who: str, call: Call, object_id: str, catalogue: Catalogue, collected: float) -> Iterator[str]:
    """An acknowledged checkpoint is there as it was told, or a collection has come since and nothing needs it."""
    step = catalogue.steps.get(object_id)
    if step is None:
        if call.ended > collected:
            yield f"{who} saved #{object_id[:12]}, which is missing, and nothing was collected since"
        return
    parent = call.result.get("parent", "")
    if call.order.op == "turn" and step.parent != parent:
        yield f"{who} saved #{object_id[:12]} after #{parent[:12]}, and it stands after #{step.parent[:12]}"
    if step.text != (call.order.prompt + call.text).encode():
        yield f"{who}: the text of #{object_id[:12]} is not its prompt and reply: {step.text[-60:]!r}"


def _twice(catalogue: Catalogue) -> Iterator[str]:
    for mark, objects in catalogue.marks.items():
        if len(set(objects)) > 1:
            yield f"turn <{mark}> has had {len(objects)} effects: {[one[:12] for one in objects]}"


def _said(call: Call) -> Iterator[str]:
    """A scripted model says what its script says."""
    order = call.order
    if order.op != "turn" or order.model != SCRIPTED or order.args.get("max_tokens") == 0:
        return
    whole = expected(order.prompt)
    stop = call.result.get("stop", "")
    if call.text != whole and not (stop in CUT and whole.startswith(call.text)):
        yield f"turn {call.n} was answered {call.text[-40:]!r} ({stop}), where its script says {whole[-40:]!r}"


def _shown(call: Call, catalogue: Catalogue) -> Iterator[str]:
    """The text that a context was said to have is the one that it has."""
    if call.order.op == "ckpt.show" and call.order.args.get("text"):
        object_id = call.result["row"]["object"]
        if object_id in catalogue.steps and not catalogue.text(object_id).startswith(call.text.encode()):
            yield f"call {call.n} showed another text of #{object_id[:12]} than it has"


def expected(prompt: str) -> str:
    found = next(reply for reply in SCRIPT["replies"] if prompt.endswith(reply["after"]))
    return "".join(found["pieces"])


def _last_collection(history: History, model: str) -> float:
    """When the last collection may have ended; infinite where one was never answered."""
    calls = [call for call in history.calls if call.order.op == "ckpt.gc" and call.order.model == model]
    return max((call.ended if call.answered else math.inf for call in calls), default=0.0)


def _diaries(requests: Iterable[list[Call]], catalogue: Catalogue, names: Names, model: str) -> Iterator[str]:
    """A name that only turns of its own have moved holds each acknowledged one of them once, in order of time."""
    written: dict[str, list[Entry]] = {}
    for calls in requests:
        order = calls[0].order
        good = [call.ended for call in calls if call.ok]
        if good and order.op in TURNS and order.context and order.context == order.args.get("save"):
            began = min(call.began for call in calls)
            written.setdefault(order.context, []).append(Entry(mark_of(order), began, min(good)))
    for name, entries in written.items():
        if all(_by_own_turn(operation) for operation in names[model, name]):
            yield from diary(name, entries, [step.mark for step in catalogue.lineage(catalogue.names.get(name, ""))])


def _by_own_turn(operation: Operation) -> bool:
    """Whether it moved the name only as a turn does that goes on from it."""
    return operation.kind == "read" or (operation.kind == "swap" and operation.what.startswith(("turn", "bridge.bang")))


@dataclass(frozen=True, slots=True)
class Entry:
    """An acknowledged turn: its mark, and between which times it took effect."""

    mark: str
    began: float
    ended: float


def diary(name: str, entries: Iterable[Entry], newest_first: list[str]) -> Iterator[str]:
    """Hold the acknowledged turns of a name against the marks of its lineage."""
    place = {mark: at for at, mark in enumerate(reversed(newest_first))}
    known = list(entries)
    for entry in known:
        if (times := newest_first.count(entry.mark)) != 1:
            yield f"{name} holds the acknowledged turn <{entry.mark}> {times} times"
    latest = 0.0
    for entry in sorted((entry for entry in known if entry.mark in place), key=lambda entry: place[entry.mark]):
        if entry.ended < latest:
            yield f"{name} holds the turn <{entry.mark}> after one that began when it was answered already"
        latest = max(latest, entry.began)
