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
"""The size of one request's text. Several requests let a long priming show progress, and resume if a worker is lost."""


@dataclass(frozen=True, slots=True)
class Primed:
    """The resulting object, the number of tokens that it has read, and the number of examples."""

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
    """Read examples into a new context `name`. If a call fails, the same call continues where it stopped.

    Raises BadRequest if there are no rows, Conflict if the name is already in use, and all other errors of the broker.
    """
    if not rows:
        raise BadRequest("there are no rows to prime with: add some to the file of rows")
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
    """Joins whole examples to texts of about PART_BYTES."""
    parts = [""]
    for text in texts:
        if parts[-1] and len(parts[-1].encode()) + len(text.encode()) > PART_BYTES:
            parts.append("")
        parts[-1] += text
    return parts
