"""What the broker takes, its events, and what it returns for them, its actions."""

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
    """A decoded message of a route; `frames` are its raw ones, to be forwarded as they are, `user` who sent it."""

    now: float
    route: Route
    message: wire.Message
    payloads: list[bytes]
    frames: Sequence[bytes]
    user: User = LOCAL


@dataclass(slots=True)
class Refuse:
    """A route sent what is no message of the protocol, or is let in no more."""

    now: float
    route: Route
    error: SsmprovError


@dataclass(slots=True)
class Unreachable:
    """A send to this route found nobody there, or its outgoing queue has been full for too long."""

    now: float
    route: Route


@dataclass(slots=True)
class Admit:
    """The allow-list has changed: who is let in from now on, by public key."""

    now: float
    users: Mapping[str, User]


@dataclass(slots=True)
class Tick:
    now: float


@dataclass(slots=True)
class Disconnected:
    """Somebody's connection has ended. A ROUTER does not tell whose it was."""

    now: float


@dataclass(slots=True)
class Due:
    """What the broker holds back for a moment has waited long enough (`Broker.due_at`)."""

    now: float


@dataclass(slots=True)
class Drain:
    now: float


@dataclass(slots=True)
class Ended:
    """The process of a client that was asked for (`Look`) has ended: it will not come back."""

    now: float
    client: Id


Event = Received | Refuse | Unreachable | Admit | Disconnected | Tick | Due | Drain | Ended


@dataclass(slots=True)
class Send:
    route: Route
    frames: Sequence[bytes]


@dataclass(slots=True)
class Kill:
    """End a lost worker for sure: the process `pid` of this host, if it still began at `started`."""

    pid: int
    started: int
    host: str


@dataclass(slots=True)
class Look:
    """See whether the process of a client that is gone has ended."""

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
