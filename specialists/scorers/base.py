"""What every scorer takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_ANSWER = 64 * 1024
"""Characters of an answer that are judged; what is longer is not valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a probe expects of an answer.

    `tags` are those of its prompt. `starts` is what the answer begins with, `contains` and `forbids` are looked for in
    it, `exactly` is all of it, `matches` a regular expression for all of it.
    """

    tags: tuple[str, ...] = ()
    starts: str = ""
    contains: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    exactly: str | None = None
    matches: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that was asked for, and whether the answer shows it."""

    what: str
    shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The judgement of one answer. `valid` is None where no parser for it is at hand; `why` says what is wrong.

    `end` is where the intended answer closes, in characters, None where it never does: only blanks may follow it.
    """

    valid: bool | None
    prefix: bool
    hits: Sequence[Hit] = ()
    end: int | None = None
    why: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def adherence(self) -> float:
        """The share of hits; 1 where nothing was asked for."""
        return sum(hit.shown for hit in self.hits) / len(self.hits) if self.hits else 1.0

    @property
    def passes(self) -> bool:
        """Whether all that was expected holds."""
        return bool(self.valid) and self.prefix and all(hit.shown for hit in self.hits)


Scorer = Callable[[str, Expected], Score]


def text_hits(answer: str, expected: Expected) -> list[Hit]:
    """What any answer can be asked for: texts in it, and texts that must not be."""
    hits = [Hit(f"contains {wanted!r}", wanted in answer) for wanted in expected.contains]
    return hits + [Hit(f"free of {unwanted!r}", unwanted not in answer) for unwanted in expected.forbids]


def ends_cleanly(answer: str, score: Score) -> bool:
    """Whether nothing but blanks follows the intended close."""
    return score.end is not None and not answer[score.end :].strip()
