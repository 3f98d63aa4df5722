"""Draws a forest of checkpoints as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ssmprov.formatting import short
from ssmprov.ops import Step
from ssmprov.terminal import printable


def draw(steps: Sequence[Step], pins: Mapping[str, str]) -> Iterator[str]:
    """The lines of a forest. `pins` maps a pinned name to its worker. A node without a name shows its hash.

    It uses no recursion, because a lineage may be longer than Python's stack.
    """
    known = {step.object for step in steps}
    children: dict[str, list[Step]] = {}
    for step in steps:
        children.setdefault(step.parent if step.parent in known else "", []).append(step)
    stack = _siblings(children.get("", []), "")
    while stack:
        step, indent, last = stack.pop()
        yield f"{indent}{'└─ ' if last else '├─ '}{label(step, pins)}"
        stack += _siblings(children.get(step.object, []), indent + ("   " if last else "│  "))


def _siblings(steps: Sequence[Step], indent: str) -> list[tuple[Step, str, bool]]:
    """Siblings in stack order: the first one on top."""
    return [(step, indent, i == len(steps) - 1) for i, step in enumerate(steps)][::-1]


def label(step: Step, pins: Mapping[str, str]) -> str:
    """A checkpoint's names with their pins, its hash, and what it has read."""
    names = [f"{name} [{pins[name]}]" if name in pins else name for name in step.names]
    words = [", ".join(names), short(step.object), f"{step.tokens} tokens"]
    if step.parent:
        words.append(f"(+{step.step_tokens})")
    if step.kind != "turn":
        words.append(step.kind)
    return printable("  ".join(word for word in words if word))
