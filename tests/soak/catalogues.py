"""What a store holds at the end, read from its catalogue without the code under test."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

MARK = re.compile(rb"<(c[0-9.]+)>")


@dataclass(frozen=True, slots=True)
class Step:
    object: str
    parent: str
    text: bytes
    kind: str = "turn"
    stored: bool = True

    @property
    def mark(self) -> str:
        """The mark of the turn that made it, with which its text begins; '' for none."""
        found = MARK.match(self.text)
        return found[1].decode() if found else ""


@dataclass(slots=True)
class Catalogue:
    """`marks` maps a turn's mark to the objects that the turn made."""

    steps: dict[str, Step] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    marks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, step: Step) -> None:
        self.steps[step.object] = step
        if step.mark and step.kind == "turn":
            self.marks.setdefault(step.mark, []).append(step.object)

    def lineage(self, object_id: str) -> Iterator[Step]:
        """From the step to its root, as far as it is there."""
        step = self.steps.get(object_id)
        while step is not None:
            yield step
            step = self.steps.get(step.parent)

    def text(self, object_id: str) -> bytes:
        return b"".join(reversed([step.text for step in self.lineage(object_id)]))


def read(store: Path) -> Catalogue:
    """Read a store's catalogue that nobody writes any more."""
    found = Catalogue()
    with closing(sqlite3.connect(f"file:{store / 'catalogue.sqlite'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT s.object, p.object, r.text, s.kind, s.stored FROM steps s LEFT JOIN steps p ON p.number = s.parent"
            " JOIN reads r ON r.step = s.number ORDER BY s.number"
        )
        for object_id, parent, text, kind, stored in rows:
            found.add(Step(object_id.hex(), parent.hex() if parent else "", bytes(text), kind, bool(stored)))
        names = connection.execute("SELECT n.name, s.object, n.pinned FROM names n JOIN steps s ON s.number = n.step")
        for name, object_id, pinned in names:
            found.names[name] = object_id.hex()
            if pinned:
                found.pins[name] = pinned
    return found
