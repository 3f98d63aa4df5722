"""Scorers judge answers: with the task's own parser, with rules for the text, and by what the prompt's tags ask for.

A scorer is a function that takes an answer and the expectations, and returns a `Score`. It accepts any text without
raising an error. What it cannot judge on this machine (if a parser is not installed) is None.
"""

from __future__ import annotations

from specialists.scorers.base import Expected, Score, Scorer
from specialists.scorers.code import code
from specialists.scorers.route import route
from specialists.scorers.text_rules import text_rules
from specialists.scorers.turn import turn
from specialists.scorers.xml import xml
from ssmprov.errors import BadRequest, nearest

SCORERS: dict[str, Scorer] = {"text_rules": text_rules, "xml": xml, "code": code, "route": route, "turn": turn}


def scorer_of(name: str) -> Scorer:
    """The scorer with this name. Raises BadRequest if there is none."""
    if name not in SCORERS:
        raise BadRequest(f"there is no scorer {name!r}{nearest(name, SCORERS)}")
    return SCORERS[name]


__all__ = ["SCORERS", "Expected", "Score", "Scorer", "scorer_of"]
