"""The phases of a task, the legal moves between them, and the story of each task, which helps to debug the broker."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, NamedTuple

Phase = Literal["queued", "ready", "running", "settling", "answered"]
"""A task waits for its names, waits for a worker, and runs at a worker. If the worker is lost, the task is settling
until the store says whether it was committed. In the end it is answered."""

MOVES: dict[Phase, frozenset[Phase]] = {
    "queued": frozenset({"ready", "running", "answered"}),
    "ready": frozenset({"queued", "running", "answered"}),
    "running": frozenset({"ready", "running", "settling", "answered"}),
    "settling": frozenset({"answered"}),
    "answered": frozenset(),
}
"""The phases that a task may enter from each phase.

A ready task is queued again if a worker that registers again still holds its names. A running task stays running if
its worker registers again. It becomes ready again if its worker is lost and another one may do the work.
"""

STEPS = 32
"""How many steps a story keeps; older ones are dropped."""

ENDED = 512
"""How many stories of ended tasks are kept."""

SHOWN = 10
"""How many stories are shown for one prefix of an id."""


class Step(NamedTuple):
    at: float
    what: str
    worker: str


@dataclass(slots=True, eq=False)
class Story:
    """The last steps of one task. It contains no prompts, no replies and no names of contexts."""

    id: bytes
    op: str
    model: str
    steps: deque[Step] = field(default_factory=lambda: deque(maxlen=STEPS))

    def add(self, at: float, what: str, worker: str = "") -> None:
        self.steps.append(Step(at, what, worker))

    def __str__(self) -> str:
        last = self.steps[-1].at if self.steps else 0.0
        lines = [
            f"{step.at - last:+.3f} s: {step.what}{f' ({step.worker})' * bool(step.worker)}" for step in self.steps
        ]
        return "\n".join([f"{self.op} {self.id.hex()} of {self.model or 'no model'}", *lines])


class IllegalMove(RuntimeError):
    """A bug in the broker. It ends the broker, which continues all its work after a restart."""

    def __init__(self, old: Phase, new: Phase, story: Story) -> None:
        super().__init__(f"a task cannot go from {old} to {new}. Its story:\n{story}")


def check_move(old: Phase, new: Phase, story: Story) -> None:
    """Raises IllegalMove."""
    if new not in MOVES[old]:
        raise IllegalMove(old, new, story)


class EndedStories:
    """The stories of the tasks that ended last."""

    def __init__(self) -> None:
        self._kept: deque[Story] = deque(maxlen=ENDED)

    def keep(self, story: Story) -> None:
        self._kept.append(story)

    def __len__(self) -> int:
        return len(self._kept)

    def __reversed__(self) -> Iterator[Story]:
        return reversed(self._kept)


def find(prefix: str, stories: Iterable[Story]) -> list[Story]:
    """The first few stories whose hexadecimal id begins with `prefix`."""
    return list(islice((story for story in stories if story.id.hex().startswith(prefix)), SHOWN))
