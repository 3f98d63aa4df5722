"""`say`: a text as a turn of the user, and the answer to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from clients import requests
from clients.calls import TTL_S, Call, Plan
from clients.resolve import resolve
from ssmprov.errors import NotFound
from ssmprov.transcript import full_step, next_turn

ROLE = "USER"
REPLY_ROLE = "INTERFACE"
NEW = "none"
"""The `if_head` of a name that must not exist yet."""


class SayOptions(TypedDict, total=False):
    """The options of `say`, as in `clients.requests.TurnOptions`. `to` is the context that continues."""

    to: str
    model: str
    settings: str
    values: Mapping[str, float] | None
    seed: int | None
    max_tokens: int | None
    max_chars: int | None
    ttl_s: float
    request_id: bytes | None


def say(
    text: str,
    *,
    stream: bool,
    to: str = "",
    model: str = "",
    settings: str = "",
    values: Mapping[str, float] | None = None,
    seed: int | None = None,
    max_tokens: int | None = None,
    max_chars: int | None = None,
    ttl_s: float = TTL_S,
    request_id: bytes | None = None,
) -> Plan[Call]:
    """The call for the turn, after reading the context that it continues."""
    before, head = "", NEW
    if to:
        try:
            model, (to,) = yield from resolve(model, [to], known=to)
            row = (yield from requests.show(to, model=model)).row
            head = row.object
            before = yield from requests.text(f"#{head}", model=model, since_root=row.opaque)
        except NotFound:
            model, (to,) = yield from resolve(model, [to])
    lead, number = next_turn(before)
    return (
        yield from requests.turn(
            lead + full_step(number, ROLE, text, REPLY_ROLE),
            stream=stream,
            model=model,
            context=to,
            save=to,
            if_head=head if to else None,
            create=True,
            settings=settings,
            values=values,
            seed=seed,
            max_tokens=max_tokens,
            max_chars=max_chars,
            ttl_s=ttl_s,
            request_id=request_id,
        )
    )
