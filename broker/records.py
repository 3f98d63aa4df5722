"""The records that the broker keeps: peers, clients, tasks and workers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from broker.phases import Phase, Story
from ssmprov import wire
from ssmprov.keys import LOCAL, User
from ssmprov.names import parse_ref
from ssmprov.operations import Operation, Room, find

Route = bytes
Id = bytes

Owner = bytes | str
"""Who a task counts for when slots are shared out: a client's key, or the client itself if it has none."""

HOUSE: Owner = ""
"""The owner of the broker's own tasks."""


@dataclass(slots=True, kw_only=True)
class Peer:
    """A route and who uses it: `client`, `worker` and `model` are empty until the peer has sent them."""

    route: Route
    user: User = LOCAL
    client: Id = b""
    worker: str = ""
    model: str = ""
    unanswered: int = 0
    probe_at: float = 0.0


@dataclass(slots=True, kw_only=True)
class Client:
    """A client. Its id belongs to the key that used it first; `user` is None until then."""

    id: Id
    route: Route | None = None
    user: User | None = None
    gone_at: float = 0.0
    process: wire.Process | None = None
    tasks: set[Id] = field(default_factory=set)

    @property
    def key(self) -> str:
        """Its public key; '' if it has none."""
        return self.user.public if self.user else ""

    @property
    def owner(self) -> Owner:
        return self.key or self.id


@dataclass(slots=True)
class Allowance:
    """How many requests a key may send now. It fills up over time, to what is allowed in two seconds."""

    requests: float
    since: float

    def take(self, now: float, per_s: float) -> float:
        """Use one request. Returns 0.0, or the seconds until the next one is allowed."""
        self.requests = min(max(1.0, 2 * per_s), self.requests + (now - self.since) * per_s)
        self.since = now
        if self.requests < 1:
            return (1 - self.requests) / per_s
        self.requests -= 1
        return 0.0


@dataclass(slots=True, eq=False, kw_only=True)
class Task:
    """An accepted request; `broker.phases` tells its phases.

    `internal` marks a task of the broker itself (settle, warm). `found` marks one that was given out before the broker
    was restarted: its arguments and payloads are not known, so no other worker can do it; it is `unasked` until its
    client sends it again, who may have been answered before. A settle decides about the lost task `about`.

    `text` is what was streamed, kept until the answer so that a reader who comes back misses nothing. Its reader was
    sent the text up to byte `sent`. `place` is the place in the queue that a held ACCEPTED tells. `loads` is the name
    whose state it loads, '' for none. `bytes` is its size on arrival, which counts against the limits. `room` is what
    it occupies of its worker (slot, probe or state); `slot` tells whether that is a slot.
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
    phase: Phase = "queued"
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
    story: Story = field(init=False)

    def __post_init__(self) -> None:
        request = self.request
        self.id = request.id
        self.loads = parse_ref(request.context).name if request.context else ""
        self.bytes = sum(map(len, self.payloads)) + len(request.args)
        self.operation = find(request.op)
        self.room = self.operation.room
        self.slot = self.room == "slot"
        self.story = Story(request.id, request.op, request.model)

    @property
    def transfer(self) -> bool:
        """Whether it moves a file in CHUNKs, which cannot be resumed in the middle."""
        return bool(self.operation.file)


@dataclass(slots=True, eq=False, kw_only=True)
class Worker:
    """A leased worker and its tasks; `running` counts the tasks that occupy a slot."""

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
        """Give it a task."""
        if task.id not in self.tasks:
            self.tasks[task.id] = task
            self.running += task.slot

    def drop(self, task: Task) -> bool:
        """Take a task away from it. Returns whether it had the task."""
        if self.tasks.pop(task.id, None) is None:
            return False
        self.running -= task.slot
        return True
