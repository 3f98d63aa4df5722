"""ACCEPTED: what tells a client that its request was taken in.

It costs as much as an answer, and a wake-up of the client. So where a request has begun at once it waits for a moment,
and is left out where the answer is there by then.
"""

from __future__ import annotations

import math

from broker.records import Task
from broker.state import State
from ssmprov import wire

HOLD_S = 0.01
"""So long ACCEPTED waits for the answer of a request that has begun at once: where that comes, it says more."""


class AcceptedNotices:
    """The part of the machine that sends ACCEPTED, or holds it back."""

    def __init__(self, state: State) -> None:
        self._state = state

    def hold_back(self, task: Task) -> None:
        """Tell a client that its request was accepted: at once where it has to wait, else unless its answer is soon."""
        if task.phase == "running":
            self._state.held[task.id] = (self._state.now + HOLD_S, task)
        elif task.phase != "answered":
            self.announce(task)

    def announce(self, task: Task) -> None:
        self._state.held.pop(task.id, None)
        self._state.tell(task.client, wire.Accepted(task.id, task.attempt, task.place))

    def before(self, task: Task) -> None:
        """Before anything else is told of a request, its client is told that it was accepted."""
        if task.id in self._state.held:
            self.announce(task)

    @property
    def due_at(self) -> float:
        """When the next one has waited long enough; infinite for none."""
        held = self._state.held
        return next(iter(held.values()))[0] if held else math.inf

    def due(self) -> None:
        """Send the ACCEPTEDs that have waited long enough."""
        while self._state.held:
            until, task = next(iter(self._state.held.values()))
            if until > self._state.now:
                return
            self.announce(task)
