"""The events that the broker handles, and the actions that it returns for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from broker.records import Id, Route
from ssmprov import wire
from ssmprov.errors import SsmprovError
from ssmprov.keys import LOCAL, User

Level = Literal["debug", "info", "warning", "error"]


@dataclass(slots=True, kw_only=True)
class Received:
    """A decoded message from a route. `frames` are its raw frames, to be forwarded as they are; `user` sent it."""

    now: float
    route: Route
    message: wire.Message
    payloads: list[bytes]
    frames: Sequence[bytes]
    user: User = LOCAL


@dataclass(slots=True)
class Refuse:
    """A route sent something that is not a message of the protocol, or its key is no longer allowed."""

    now: float
    route: Route
    error: SsmprovError


@dataclass(slots=True)
class Unreachable:
    """A message to this route found nobody there, or too many messages wait for it."""

    now: float
    route: Route


@dataclass(slots=True)
class Admit:
    """The allow-list has changed: `users` maps each allowed public key to its user."""

    now: float
    users: Mapping[str, User]


@dataclass(slots=True)
class Tick:
    """Time has passed."""

    now: float


@dataclass(slots=True)
class Disconnected:
    """A connection has ended. A ROUTER does not tell whose it was."""

    now: float


@dataclass(slots=True)
class Due:
    """A message that the broker holds back has waited long enough (`Broker.due_at`)."""

    now: float


@dataclass(slots=True)
class Drain:
    """The broker has to end."""

    now: float


@dataclass(slots=True)
class Ended:
    """The process of a client has ended, as `Look` asked: it will not come back."""

    now: float
    client: Id


Event = Received | Refuse | Unreachable | Admit | Disconnected | Tick | Due | Drain | Ended


@dataclass(slots=True)
class Send:
    """Send a message to a route."""

    route: Route
    frames: Sequence[bytes]


@dataclass(slots=True)
class Kill:
    """Kill a lost worker: the process `pid` of this host, if it is still the one that began at `started`."""

    pid: int
    started: int
    host: str


@dataclass(slots=True)
class Look:
    """Find out whether the process of a disconnected client has ended."""

    client: Id
    process: wire.Process


@dataclass(slots=True)
class Log:
    """One line of the log."""

    text: str
    level: Level = "info"


@dataclass(slots=True)
class Stop:
    """The drain is complete."""


Action = Send | Kill | Look | Log | Stop
