"""The prompts of the Paris margin. The right continuation is Paris for all of them except the controls."""

from __future__ import annotations

PROMPTS: dict[str, tuple[str, ...]] = {
    "capital": (
        "The capital of France is",
        "France is governed from its capital,",
        "The seat of the French government is the city of",
        "Ask anyone for the capital city of France and you will hear",
        "The largest city of France, and also its capital, is",
        "The president of the French Republic lives in",
    ),
    "landmark": (
        "The Eiffel Tower stands in",
        "To see the Mona Lisa, visit the Louvre in",
        "The river Seine flows through the city of",
        "The cathedral of Notre-Dame, which burned in 2019, is in",
        "The Arc de Triomphe is a monument in",
    ),
    "history": (
        "The Bastille was stormed in 1789 in",
        "The peace conference of 1919 met in",
        "Napoleon was crowned emperor in 1804 in",
    ),
    "control": (
        "The capital of Germany is",
        "The capital of England is",
        "The capital of Italy is",
    ),
}


def texts() -> list[tuple[str, str]]:
    """The group and the text of each prompt, in order."""
    return [(group, text) for group, prompts in PROMPTS.items() for text in prompts]
