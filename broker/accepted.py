"""ACCEPTED: the message that tells a client that its request was accepted.

It costs as much as an answer, and it wakes the client. So if a request starts at once, the message waits for a moment,
and it is not sent if the answer comes first.
"""

from __future__ import annotations

import math

from broker.records import Task
from broker.state import State
from ssmprov import wire

HOLD_S = 0.01
"""ACCEPTED waits this long for the answer to a request that started at once, since the answer says more."""


class AcceptedNotices:
    """The part of the machine that sends ACCEPTED or holds it back."""

    def __init__(self, state: State) -> None:
        self._state = state

    def hold_back(self, task: Task) -> None:
        """Tell a client that its request was accepted: now if it waits, else only if its answer takes a moment."""
        if task.phase == "running":
            self._state.held[task.id] = (self._state.now + HOLD_S, task)
        elif task.phase != "answered":
            self.announce(task)

    def announce(self, task: Task) -> None:
        self._state.held.pop(task.id, None)
        self._state.tell(task.client, wire.Accepted(task.id, task.attempt, task.place))

    def before(self, task: Task) -> None:
        """Send a held ACCEPTED before anything else about its request."""
        if task.id in self._state.held:
            self.announce(task)

    @property
    def due_at(self) -> float:
        """When the next held message must be sent; infinite if there is none."""
        held = self._state.held
        return next(iter(held.values()))[0] if held else math.inf

    def due(self) -> None:
        """Send the messages that have waited long enough."""
        while self._state.held:
            until, task = next(iter(self._state.held.values()))
            if until > self._state.now:
                return
            self.announce(task)
