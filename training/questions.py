"""What the model answers by heart, the same in both splits: questions about ssmprov and a few others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """Questions that mean the same, the usual one first, and their answer."""

    questions: tuple[str, ...]
    answer: str


def known(text: str) -> tuple[Known, ...]:
    """The questions of a text: lines of questions separated by |, each followed by the line of its answer."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return tuple(Known(tuple(questions.split(" | ")), answer) for questions, answer in pairs)


KNOWN = known(Path(__file__).with_name("questions.txt").read_text(encoding="utf-8"))
QUESTIONS = frozenset(question for entry in KNOWN for question in entry.questions)
