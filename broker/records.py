"""What the broker knows: its peers, clients, workers, models and tasks; the events it takes, the actions it returns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ssmprov import wire
from ssmprov.errors import SsmprovError
from ssmprov.keys import LOCAL, User
from ssmprov.names import parse_ref
from ssmprov.operations import Operation, Room, find

if TYPE_CHECKING:
    from broker.ready import Ready

Route = bytes
Id = bytes

Owner = bytes | str
"""Whom a task counts for where slots are shared out: a client's key, or the client where it has none."""

HOUSE: Owner = ""
"""The owner of the broker's own tasks."""


@dataclass(slots=True)
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


Event = Received | Refuse | Unreachable | Admit | Tick | Due | Drain | Ended


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
    text: str


@dataclass(slots=True)
class Stop:
    """The drain is complete."""


Action = Send | Kill | Look | Log | Stop


@dataclass(slots=True)
class Peer:
    """A route and who speaks on it: `client`, `worker` and its `model` are '' until it has said so."""

    route: Route
    user: User = LOCAL
    client: Id = b""
    worker: str = ""
    model: str = ""
    unanswered: int = 0
    probe_at: float = 0.0


@dataclass(slots=True)
class Client:
    """Who asks; its id belongs to the key that said it first, which is not known before (None)."""

    id: Id
    route: Route | None
    user: User | None
    gone_at: float = 0.0
    process: wire.Process | None = None
    tasks: set[Id] = field(default_factory=set)

    @property
    def key(self) -> str:
        """Its public key, '' for none."""
        return self.user.public if self.user else ""

    @property
    def owner(self) -> Owner:
        return self.key or self.id


@dataclass(slots=True)
class Allowance:
    """How many requests a key may ask at once; it fills up with time, to as many as two seconds bring."""

    requests: float
    since: float

    def take(self, now: float, per_s: float) -> float:
        """Use one up: 0.0, or the seconds until there is one again."""
        self.requests = min(max(1.0, 2 * per_s), self.requests + (now - self.since) * per_s)
        self.since = now
        if self.requests < 1:
            return (1 - self.requests) / per_s
        self.requests -= 1
        return 0.0


@dataclass(slots=True, eq=False)
class Task:
    """An accepted request on its way: queued (for its names), ready (for a worker), running, settling.

    `internal` marks one of the broker's own (settle, warm), `found` one that was given out before the broker's
    restart: its arguments and payloads are not known, so it can be given to no other worker; `unasked` until its
    client, who may have been answered then, has sent it again. `about` is the lost task that a settle decides. `text`
    is what was streamed, kept until the answer so that a reader who comes back misses nothing; its reader was sent it
    up to byte `sent`. `place` is what ACCEPTED is to say, while that is held back. `loads` is the name whose state it
    loads, '' for none; `bytes` its size as it came, which the bounds count; `room` is what it occupies of its worker
    (slot, probe or state), and `slot` tells whether that is one of its slots.
    """

    request: wire.Request
    payloads: list[bytes]
    args: Any
    client: Id
    shared: frozenset[str]
    exclusive: frozenset[str]
    saves: bool
    deadline: float
    order: int
    internal: bool = False
    found: bool = False
    unasked: bool = False
    pinned: str = ""
    phase: str = "queued"
    worker: str = ""
    attempt: int = 1
    seq: int = 0
    sent: int = 0
    text: bytearray = field(default_factory=bytearray)
    tries: int = 0
    waits_since: float = 0.0
    place: int = 0
    about: Task | None = None
    owner: Owner = HOUSE
    id: Id = field(init=False)
    loads: str = field(init=False)
    bytes: int = field(init=False)
    operation: Operation[Any, Any] = field(init=False)
    room: Room = field(init=False)
    slot: bool = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.id = request.id
        self.loads = parse_ref(request.context).name if request.context else ""
        self.bytes = sum(map(len, self.payloads)) + len(request.args)
        self.operation = find(request.op)
        self.room = self.operation.room
        self.slot = self.room == "slot"

    @property
    def transfer(self) -> bool:
        """Whether it moves a file in CHUNKs, which cannot be taken up again in the middle."""
        return bool(self.operation.file)


@dataclass(slots=True, eq=False)
class Worker:
    """A lease and what was given out under it; `running` counts those of its `tasks` that occupy a slot."""

    name: str
    model: str
    route: Route
    epoch: int
    slots: int
    pid: int
    started: int
    host: str
    stall_s: float
    state: str = "ready"
    tasks: dict[Id, Task] = field(default_factory=dict)
    running: int = 0
    seen_at: float = 0.0
    pulsed_at: float = 0.0
    progress: int = 0
    progress_at: float = 0.0
    pulse: wire.Pulse = field(default_factory=wire.Pulse)
    rates: tuple[float, float] = (0.0, 0.0)

    def take(self, task: Task) -> None:
        if task.id not in self.tasks:
            self.tasks[task.id] = task
            self.running += task.slot

    def drop(self, task: Task) -> bool:
        """Whether it had the task."""
        if self.tasks.pop(task.id, None) is None:
            return False
        self.running -= task.slot
        return True


@dataclass(slots=True)
class Model:
    """A served model; `hot` maps a name to the worker that held it last, `ready` waits for a worker.

    `moved` tells that this broker has seen pins change.
    """

    card: wire.ModelCard
    store: str
    ready: Ready
    workers: dict[str, Worker] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    moved: bool = False
    hot: OrderedDict[str, str] = field(default_factory=OrderedDict)
    empty_at: float = 0.0
