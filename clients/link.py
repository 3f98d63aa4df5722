"""What both clients share: which endpoint they use, and where a core's actions go."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Generic, TypeVar

from clients.core import Action, Core, Send
from clients.exchange import Event, Result
from ssmprov import configuration, wire
from ssmprov.causes import told
from ssmprov.errors import SsmprovError, error_of
from ssmprov.keys import Credentials, credentials_for
from ssmprov.process import this

TICK_S = 0.1
LINGER_MS = 250
"""How long closing waits until BYE is sent."""


def choose_endpoint(endpoint: str | None, home: Path | None) -> str:
    """The endpoint given, else `$SSMPROV_BROKER`, else the first one of the configuration.

    Raises BadRequest or NotFound if the configuration cannot be read.
    """
    chosen = endpoint or os.environ.get("SSMPROV_BROKER")
    if chosen:
        return configuration.endpoint_of(chosen, home or configuration.home_of())
    named = os.environ.get("SSMPROV_CONFIG") if home is None else None
    return configuration.load(Path(named) if named else None, home).endpoints()[0]


def choose_credentials(endpoint: str, home: Path | None) -> Credentials | None:
    """The keys for an endpoint, if it needs any. Raises what `ssmprov.keys.credentials_for` raises."""
    return credentials_for(endpoint, home or configuration.home_of())


def core_of(endpoint: str, agent: str, timeout_s: float, patience_s: float) -> Core:
    """The core of a client in this process."""
    process = wire.Process(*this())
    return Core(agent=agent, endpoint=endpoint, timeout_s=timeout_s, patience_s=patience_s, process=process)


B = TypeVar("B")


class Desk(Generic[B]):
    """Delivers actions: frames to the outbox, events to the box of their request."""

    def __init__(self, put: Callable[[B, Event], object]) -> None:
        self.outbox: deque[list[bytes]] = deque()
        self.boxes: dict[bytes, B] = {}
        self._put = put

    def file(self, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.outbox.append(action.frames)
                continue
            if (box := self.boxes.get(action.id)) is not None:
                self._put(box, action.event)
            if isinstance(action.event, Result):
                self.boxes.pop(action.id, None)

    def drop(self, request_id: bytes, box: B) -> bool:
        """Remove a box if it is still the request's, and return whether it was."""
        if self.boxes.get(request_id) is not box:
            return False
        del self.boxes[request_id]
        return True

    def fail(self, fault: Exception) -> SsmprovError:
        """End every request with an error about an internal fault, so that no one waits forever. Returns that error."""
        error = error_of(told(fault))
        self.end(error)
        return error

    def end(self, error: SsmprovError) -> None:
        """End every request with an error."""
        for box in self.boxes.values():
            self._put(box, Result(error=error))
        self.boxes.clear()
