"""Priming: reads rows into a context through the broker, as turns of a transcript. It works on every runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from clients.blocking import Client
from specialists.rows import Row
from ssmprov import transcript
from ssmprov.errors import BadRequest

PART_BYTES = 64 * 1024
"""Text of one request: a long priming tells of its progress, and goes on after a loss from what was saved."""


@dataclass(frozen=True, slots=True)
class Primed:
    """The object that came of it, the tokens that it has read, and the examples in it."""

    object: str
    tokens: int
    examples: int


def examples_text(rows: Sequence[Row], roles: tuple[str, str], first_turn: int = 1) -> list[str]:
    """Each row as two turns."""
    return [
        transcript.turn(first_turn + 2 * i, roles[0], row.prompt)
        + transcript.turn(first_turn + 2 * i + 1, roles[1], row.answer)
        for i, row in enumerate(rows)
    ]


def prime(
    client: Client,
    model: str,
    name: str,
    rows: Sequence[Row],
    roles: tuple[str, str],
    run_id: str,
    said: Callable[[int, int], None] | None = None,
) -> Primed:
    """Read examples into a new context `name`. The same call after a loss goes on where it was.

    Raises BadRequest without rows, Conflict where the name is taken by another, and what the broker raises.
    """
    if not rows:
        raise BadRequest("there is no row to prime with")
    parts = _parts(examples_text(rows, roles))
    head, done = "none", 0
    tokens = 0
    for i, part in enumerate(parts):
        reply = client.turn(
            part,
            model=model,
            context=name,
            create=not i,
            save=name,
            if_head=head,
            max_tokens=0,
            request_id=hashlib.sha256(f"{run_id} {name} {i}".encode()).digest()[:16],
        )
        head, tokens = reply.result.object, reply.result.tokens
        done += len(part)
        if said is not None:
            said(done, sum(map(len, parts)))
    return Primed(head, tokens, len(rows))


def _parts(texts: Sequence[str]) -> list[str]:
    """Whole examples together, of about PART_BYTES."""
    parts = [""]
    for text in texts:
        if parts[-1] and len(parts[-1].encode()) + len(text.encode()) > PART_BYTES:
            parts.append("")
        parts[-1] += text
    return parts
