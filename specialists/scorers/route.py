"""Routes: a plan and the agent that should carry it out, and nothing else."""

from __future__ import annotations

from specialists.grammars import Offended, element
from specialists.scorers.base import Expected, Hit, Score, text_hits

AGENT = "agent"
"""The tag that names the agent for a request."""

AGENTS = {
    "terminal": "shell_operator",
    "editor": "code_editor",
    "search": "researcher",
    "mail": "correspondent",
    "calendar": "scheduler",
    "files": "librarian",
}
"""The agent's name in an answer, for each value of the tag."""


def route(answer: str, expected: Expected) -> Score:
    starts = expected.starts or "<plan>"
    text = answer.lstrip()
    lead = len(answer) - len(text)
    prefix = text.startswith(starts)
    hits = text_hits(answer, expected)
    wanted = next((tag.partition(":")[2] for tag in expected.tags if tag.startswith(f"{AGENT}:")), "")
    try:
        plan, at = element("plan", text, 0)
        agent, at = element("final_agent", text, at)
    except Offended as offended:
        if wanted:
            hits.append(Hit(f"[{AGENT}:{wanted}]", False))
        return Score(
            valid=False, prefix=prefix, hits=hits, end=None, why=f"character {offended.at + 1}: {offended.why}"
        )
    if wanted:
        hits.append(Hit(f"[{AGENT}:{wanted}]", agent == AGENTS.get(wanted, wanted)))
    steps = [step for step in plan.split(";") if step.strip()]
    known = agent in AGENTS.values()
    why = "" if known else f"there is no agent {agent!r}: choose from {', '.join(AGENTS.values())}"
    return Score(
        valid=known and bool(steps),
        prefix=prefix,
        hits=hits,
        end=lead + at,
        why=why,
        extra={"steps": float(len(steps))},
    )
