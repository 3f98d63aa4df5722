"""Rules for the text itself: not empty, no repetitions, certain texts in it or not, an exact text, a pattern."""

from __future__ import annotations

import re
from collections import Counter

from specialists.scorers.base import MAX_ANSWER, Expected, Hit, Score, text_hits

WORDS = 5
"""A repetition is a run of this many words that appeared before."""

MOST_REPEATED = 0.5
MAX_MATCHED = 4096
"""How many characters a regular expression is matched against: on longer text, a bad one could take forever."""


def text_rules(answer: str, expected: Expected) -> Score:
    text = answer.strip()
    hits = text_hits(answer, expected)
    if expected.exactly is not None:
        hits.append(Hit("is as expected", text == expected.exactly.strip()))
    if expected.matches:
        hits.append(
            Hit(
                f"matches {expected.matches!r}",
                len(text) <= MAX_MATCHED and re.fullmatch(expected.matches, text, re.DOTALL) is not None,
            )
        )
    repeated = repetition(text)
    if not text:
        why = "it is empty"
    elif len(answer) > MAX_ANSWER:
        why = f"it is longer than {MAX_ANSWER} characters"
    elif repeated > MOST_REPEATED:
        why = f"{repeated:.0%} of it repeats earlier text"
    else:
        why = ""
    return Score(
        valid=not why,
        prefix=answer.lstrip().startswith(expected.starts),
        hits=hits,
        end=len(answer.rstrip()),
        why=why,
        extra={"repetition": repeated},
    )


def repetition(text: str) -> float:
    """The share of runs of `WORDS` words that appeared before; 0 if the text has fewer than two such runs."""
    words = text.split()
    runs = Counter(tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1))
    total = sum(runs.values())
    return 0.0 if len(words) < 2 * WORDS else (total - len(runs)) / total
