"""The reward of an answer for grpo and ppo: the score of the track's scorer, as a number from 0 to 1."""

from __future__ import annotations

from specialists.contract import Contract
from specialists.grammars import tags_of
from specialists.rows import Row
from specialists.scorers import scorer_of
from specialists.scorers.base import Expected, ends_cleanly


class Reward:
    """The mean of what the gates ask for: valid, the right beginning, a clean end, and the share of fulfilled hits.

    If the parser of a language is not installed, the reward uses the other three.
    """

    def __init__(self, contract: Contract) -> None:
        self._judge = scorer_of(contract.scorer)
        self._starts = contract.starts
        self._exactly = contract.scorer == "text_rules"

    def __call__(self, row: Row, answer: str, ended: bool) -> float:
        """`answer` is what the model wrote, without the end."""
        text = answer.removeprefix(" ")
        tags, _ = tags_of(row.prompt)
        score = self._judge(
            text, Expected(tags=tags, starts=self._starts, exactly=row.answer if self._exactly else None)
        )
        parts = [float(score.prefix), float(ended and ends_cleanly(text, score)), score.adherence]
        if score.valid is not None:
            parts.append(float(score.valid))
        return sum(parts) / len(parts)
