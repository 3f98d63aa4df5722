"""How an answer is judged: by the task's own parser, by rules on its text, by what its tags ask for.

A scorer is a function from an answer and what was expected to a `Score`. It reads text of any kind and raises nothing
for it; what it cannot judge on this machine (a parser that is not installed) is None.
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
    """Raises BadRequest for a name that is none."""
    if name not in SCORERS:
        raise BadRequest(f"there is no scorer {name!r}{nearest(name, SCORERS)}")
    return SCORERS[name]


__all__ = ["SCORERS", "Expected", "Score", "Scorer", "scorer_of"]
