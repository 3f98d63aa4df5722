"""The order of a port's requests: which request waits for which."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Ticket:
    """One request's place in the order of arrival.

    `end_early` is set to `drop` when its client has disconnected, and to `keep` when the bridge shuts down. `done` is
    set once the request has ended and will change nothing more.
    """

    number: int
    waits: bool
    done: asyncio.Event = field(default_factory=asyncio.Event)
    end_early: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, mode: str) -> None:
        if not self.end_early.done():
            self.end_early.set_result(mode)

    async def outlasts(self, work: asyncio.Future[Any]) -> bool:
        """Wait for the work, or until this request must end early. Returns whether the work is done."""
        either: set[asyncio.Future[Any]] = {work, self.end_early}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return work.done()


class Order:
    """The running requests. Those without a bang line wait for all earlier ones; those with one never wait."""

    def __init__(self) -> None:
        self._count = 0
        self._tickets: list[Ticket] = []

    def arrive(self, *, waits: bool) -> Ticket:
        self._count += 1
        ticket = Ticket(self._count, waits)
        self._tickets.append(ticket)
        return ticket

    def leave(self, ticket: Ticket) -> None:
        self._tickets.remove(ticket)
        ticket.done.set()

    def earlier(self, ticket: Ticket, *, only_waiting: bool = False) -> list[Ticket]:
        """The unfinished requests that arrived before this one; on request only those without a bang line."""
        return [other for other in self._tickets if other.number < ticket.number and (other.waits or not only_waiting)]

    def end_all(self, mode: str) -> None:
        for ticket in self._tickets:
            ticket.end(mode)

    async def all_done(self) -> None:
        await done(self._tickets)


async def done(tickets: Iterable[Ticket]) -> None:
    for ticket in list(tickets):
        await ticket.done.wait()
