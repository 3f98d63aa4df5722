"""Whether the history of a name could be that of one register: a search in the style of Wing and Gong, with memory.

A name is a compare-and-swap register whose values are object ids, None where there is no such name. Each operation
takes effect at one moment between its call and its answer. The sweep goes through calls and answers in order of time
and keeps every possible configuration: the register's value, and which of the open operations have taken effect.
Values are unique, so that there are few. What was never answered stays open for good; `sure` tells whether it has to
take effect at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

SOME = "*"
"""Some object, not known which: what an unanswered fork leaves."""

MAX_CONFIGURATIONS = 20_000

Value = str | None


@dataclass(frozen=True, slots=True)
class Operation:
    """`read` saw `value`; `write` left it; `swap` found `expected` (SOME: whatever stood there) and left it."""

    began: float
    ended: float
    kind: str
    value: Value
    expected: Value = None
    sure: bool = True
    what: str = ""

    def after(self, value: Value) -> tuple[Value] | None:
        """The register's value afterwards, in a tuple; None where the operation cannot have happened at this one."""
        if self.kind == "write":
            return (self.value,)
        needed = self.value if self.kind == "read" else self.expected
        if value != needed and not (value == SOME and needed is not None) and needed != SOME:
            return None
        return (self.value,)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`why` is '' for a linearizable history; `decided` False where the search was given up."""

    why: str = ""
    decided: bool = True


Configuration = tuple[Value, frozenset[int]]


class _Search:
    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = operations
        self.open: set[int] = set()
        self.configurations: set[Configuration] = {(None, frozenset())}

    def call(self, index: int) -> None:
        self.open.add(index)
        self.configurations = {self._settled(*one) for one in self.configurations}

    def answer(self, index: int) -> bool:
        """Keep the configurations in which this operation has taken effect; whether there are any."""
        self.configurations = set(self._with({index}))
        self.open.discard(index)
        self.configurations = self._least({(value, done - {index}) for value, done in self.configurations})
        return bool(self.configurations)

    def _least(self, configurations: set[Configuration]) -> set[Configuration]:
        """Without those that differ from another one only in that more of what need not happen has happened."""
        groups: dict[Configuration, list[frozenset[int]]] = {}
        for value, done in sorted(configurations, key=lambda one: len(one[1])):
            needed = frozenset(index for index in done if self.operations[index].sure)
            least = groups.setdefault((value, needed), [])
            if not any(other <= done for other in least):
                least.append(done)
        return {(value, done) for (value, _), kept in groups.items() for done in kept}

    def end(self) -> bool:
        """Whether all that surely took effect can have done so."""
        return any(True for _ in self._with({index for index in self.open if self.operations[index].sure}))

    def _with(self, needed: set[int]) -> Iterator[Configuration]:
        """All configurations reached from the present ones in which the needed operations have taken effect."""
        seen = set(self.configurations)
        front = list(self.configurations)
        while front:
            value, done = front.pop()
            if needed <= done:
                yield value, done
                continue
            for following in self._following(value, done):
                if following not in seen:
                    seen.add(following)
                    front.append(following)
            if len(seen) > MAX_CONFIGURATIONS:
                raise OverflowError

    def _following(self, value: Value, done: frozenset[int]) -> Iterator[Configuration]:
        tried: set[tuple[str, Value, Value]] = set()
        for index in sorted(self.open - done):
            operation = self.operations[index]
            after = operation.after(value)
            if after is None:
                continue
            if not operation.sure:  # one of those that are alike will do
                alike = (operation.kind, operation.expected, operation.value)
                if alike in tried or after[0] == value:
                    continue
                tried.add(alike)
            yield self._settled(after[0], done | {index})

    def _settled(self, value: Value, done: frozenset[int]) -> Configuration:
        """Let every open read that sees this value happen now: that takes nothing from any other operation."""
        if value == SOME:
            return value, done
        reads = (i for i in self.open - done if self.operations[i].kind == "read" and self.operations[i].value == value)
        return value, done.union(reads)


def check(operations: Iterable[Operation]) -> Verdict:
    """Judge the operations on one name, which does not exist at first."""
    known = sorted(operations, key=lambda operation: operation.began)
    events = [(operation.began, 0, index) for index, operation in enumerate(known)]
    events += [(operation.ended, 1, index) for index, operation in enumerate(known) if operation.ended < math.inf]
    search = _Search(known)
    try:
        for _, answered, index in sorted(events):
            if not answered:
                search.call(index)
                continue
            before = search.configurations
            if not search.answer(index):
                return Verdict(_explain(known, index, before, search.open))
        if not search.end():
            missed = [one.what for one in known if one.ended == math.inf and one.sure]
            return Verdict(f"these took effect, and there is no moment at which they can have: {missed}")
    except OverflowError:
        return Verdict(decided=False)
    return Verdict()


def _explain(known: Sequence[Operation], index: int, before: set[Configuration], open_: set[int]) -> str:
    operation = known[index]
    wanted = operation.value if operation.kind == "read" else operation.expected
    values = sorted({str(value)[:12] for value, _ in before})
    beside = [known[i].what for i in sorted(open_) if i != index][-6:]
    return (
        f"{operation.what}: a {operation.kind} of {str(wanted)[:12]}, where only {', '.join(values)} was possible; "
        f"open beside it: {beside}"
    )
