"""Turns of a transcript: `(Turn 3) [USER]: text`, closed by a fence that stands between blank lines."""

from __future__ import annotations

FENCE = "\n\n~~~(end)~~~\n\n"
HALF_FENCE = "\n\n~~~("
FENCE_REST = "end)~~~\n\n"


def header(number: int, role: str) -> str:
    """A turn's header, with the one space that separates it from the content."""
    return f"(Turn {number}) [{role}]: "


def half_step(number: int, role: str, text: str) -> str:
    """A turn whose fence the server completes: it is read, and nothing is asked of the model."""
    return header(number, role) + text + HALF_FENCE


def full_step(number: int, role: str, text: str, reply_role: str) -> str:
    """A whole turn and the header of the next one, which the model is to write."""
    return header(number, role) + text + FENCE + header(number + 1, reply_role)
