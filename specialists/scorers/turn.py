"""Turns of a transcript: an answer is the content of one turn, without headers or fences of other turns."""

from __future__ import annotations

from specialists.scorers.base import MAX_ANSWER, Expected, Score, text_hits
from ssmprov.transcript import HALF_FENCE, turns_of


def turn(answer: str, expected: Expected) -> Score:
    text = answer.strip()
    if not text:
        why = "it is empty"
    elif len(answer) > MAX_ANSWER:
        why = f"it is longer than {MAX_ANSWER} characters"
    elif turns_of(answer):
        why = "it contains the header of another turn"
    elif HALF_FENCE in answer:
        why = "it contains a part of a fence"
    else:
        why = ""
    return Score(
        valid=not why,
        prefix=answer.lstrip().startswith(expected.starts),
        hits=text_hits(answer, expected),
        end=len(answer.rstrip()),
        why=why,
    )
