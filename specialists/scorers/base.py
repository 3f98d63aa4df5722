"""The argument and the result of every scorer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

MAX_ANSWER = 64 * 1024
"""The largest length of an answer in characters. A longer answer is not valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a probe expects of an answer.

    `tags` are the tags of its prompt. The answer must begin with `starts`, contain each of `contains`, contain none of
    `forbids`, equal `exactly`, and match the regular expression `matches` as a whole.
    """

    tags: tuple[str, ...] = ()
    starts: str = ""
    contains: tuple[str, ...] = ()
    forbids: tuple[str, ...] = ()
    exactly: str | None = None
    matches: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """One requirement, and whether the answer fulfils it."""

    what: str
    shown: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The score of one answer. `valid` is None if its parser is not installed. `why` says what is wrong.

    `end` is the position, in characters, where the intended answer ends; only blanks may follow. None: it never ends.
    """

    valid: bool | None
    prefix: bool
    hits: Sequence[Hit] = ()
    end: int | None = None
    why: str = ""
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def adherence(self) -> float:
        """The share of fulfilled hits; 1 if there are none."""
        return sum(hit.shown for hit in self.hits) / len(self.hits) if self.hits else 1.0

    @property
    def passes(self) -> bool:
        """Whether the answer meets all expectations."""
        return bool(self.valid) and self.prefix and all(hit.shown for hit in self.hits)


Scorer = Callable[[str, Expected], Score]


def text_hits(answer: str, expected: Expected) -> list[Hit]:
    """The hits that every answer can have: texts that it must contain, and texts that it must not."""
    hits = [Hit(f"contains {wanted!r}", wanted in answer) for wanted in expected.contains]
    return hits + [Hit(f"free of {unwanted!r}", unwanted not in answer) for unwanted in expected.forbids]


def ends_cleanly(answer: str, score: Score) -> bool:
    """Whether only blanks follow the intended end."""
    return score.end is not None and not answer[score.end :].strip()
