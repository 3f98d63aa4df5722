"""What the model answers by heart, the same in both splits: questions about ssmprov and a few others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Known:
    """Questions that mean the same, the usual one first, and their answer."""

    questions: tuple[str, ...]
    answer: str


def known(path: Path = Path(__file__).with_name("questions.txt")) -> tuple[Known, ...]:
    """The questions of a file: lines of questions separated by |, each followed by the line of its answer."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return tuple(
        Known(tuple(questions.split(" | ")), answer) for questions, answer in zip(lines[::2], lines[1::2], strict=True)
    )


KNOWN = known()
QUESTIONS = frozenset(question for entry in KNOWN for question in entry.questions)
