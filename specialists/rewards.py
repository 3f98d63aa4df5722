"""What an answer is worth to grpo and ppo: the judgement of the track's own scorer, as a number from 0 to 1."""

from __future__ import annotations

from specialists.contract import Contract
from specialists.grammars import tags_of
from specialists.rows import Row
from specialists.scorers import scorer_of
from specialists.scorers.base import Expected, ends_cleanly


class Reward:
    """The mean of what the gates ask for: valid, begun as asked, ended cleanly, and the share of what was asked.

    A language whose parser is not installed is judged by the rest.
    """

    def __init__(self, contract: Contract) -> None:
        self._judge = scorer_of(contract.scorer)
        self._starts = contract.starts
        self._exactly = contract.scorer == "text_rules"

    def __call__(self, row: Row, answer: str, ended: bool) -> float:
        """`answer` as the model wrote it, without what ended it."""
        text = answer.removeprefix(" ")
        tags, _ = tags_of(row.prompt)
        score = self._judge(
            text, Expected(tags=tags, starts=self._starts, exactly=row.answer if self._exactly else None)
        )
        parts = [float(score.prefix), float(ended and ends_cleanly(text, score)), score.adherence]
        if score.valid is not None:
            parts.append(float(score.valid))
        return sum(parts) / len(parts)
