"""Asks a specialist in the same way as its filter: in turns of a transcript."""

from __future__ import annotations

import time
from dataclasses import dataclass

from clients.blocking import Client
from clients.requests import Reply
from ssmprov import transcript
from ssmprov.errors import Unavailable, Unreachable, WorkerLost
from ssmprov.transcript import FENCE, turns_of

PAUSES_S = (0.0, 1.0, 3.0, 6.0)
"""The pause before asking again."""

CLEAN = frozenset({"fence", "end"})
"""The stop reasons of an answer that ended by itself."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A context that may become a specialist: a model's object ('' is the empty context), which never changes.

    `turn` is the number of its next turn. `roles` are those of question and answer.
    """

    model: str
    object: str
    turn: int
    roles: tuple[str, str]

    @property
    def reference(self) -> str:
        return f"#{self.object}" if self.object else ""

    def question(self, prompt: str) -> str:
        return transcript.full_step(self.turn, self.roles[0], prompt, self.roles[1])


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer without its fence. `tokens` counts the tokens that the model wrote."""

    text: str
    stop: str
    tokens: int
    worker: str

    @property
    def ended(self) -> bool:
        """Whether the answer ended by itself."""
        return self.stop in CLEAN


def candidate(client: Client, model: str, reference: str, roles: tuple[str, str]) -> Candidate:
    """The candidate that a reference points to now; '' is the empty context. Raises NotFound."""
    if not reference:
        return Candidate(model, "", 1, roles)
    row = client.show(reference, model=model).row
    text = "" if row.opaque else client.text(f"#{row.object}", model=row.model)
    highest = max((turn.number for turn in turns_of(text)), default=0)
    return Candidate(row.model, row.object, highest + 1, roles)


def ask(
    client: Client, who: Candidate, prompt: str, *, values: dict[str, float], seed: int, max_tokens: int, ttl_s: float
) -> Answer:
    """One answer, on a fork that is discarded. The turn saves nothing, so if its worker is lost, it asks again.

    Raises WorkerLost or Unavailable if that does not help, and all other errors of the broker.
    """

    def asked() -> Reply:
        return client.turn(
            who.question(prompt),
            model=who.model,
            context=who.reference,
            values=values,
            seed=seed,
            max_tokens=max_tokens,
            ttl_s=ttl_s,
        )

    for pause_s in PAUSES_S:
        try:
            reply = asked()
            break
        except Unreachable:
            raise
        except (WorkerLost, Unavailable):
            time.sleep(pause_s)  # a worker needs some seconds to restart
    else:
        reply = asked()
    text = reply.text.removesuffix(FENCE)
    result = reply.result
    return Answer(text.removeprefix(" "), result.stop, result.reply_tokens, result.worker)
