"""A turn on its way through a worker, and the stream of its reply."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssmprov import ops, wire
from workers.context import Snapshot
from workers.turn import Turn


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request for the model: a turn, or the replay of a lineage.

    The store thread fills it, the model thread runs it, the store thread commits it. `holds` protects its starting
    point from gc. It waits until `leader` has read `parting` tokens; `shared` counts the tokens that another job read
    for it. `read_at` is the last step that read part of its prompt. Times are seconds of the monotonic clock.
    """

    request: wire.Request
    args: ops.Turn | ops.Replay
    deadline: float
    arrived: float
    turn: Turn | None = None
    start: Snapshot | None = None
    parent: str = ""
    expect: str | None = None
    any_head: bool = True
    settings: dict[str, float] = field(default_factory=dict)
    restored: str = "empty"
    cancelled: str = ""
    slot: int = -1
    arrays: Mapping[str, NDArray[np.generic]] | None = None
    holds: ExitStack = field(default_factory=ExitStack)
    leader: Job | None = None
    parting: int = 0
    shared: int = 0
    read_at: int = 0
    shown: int = 0
    told: int = 0
    restored_at: float = 0.0
    admitted_at: float = 0.0
    prompt_at: float = 0.0
    done_at: float = 0.0

    @property
    def id(self) -> bytes:
        return self.request.id

    @property
    def running(self) -> Turn:
        assert self.turn is not None, "the store thread made the turn before it submitted the job"
        return self.turn

    @property
    def state_bytes(self) -> int:
        return sum(array.nbytes for array in (self.arrays or {}).values())


@dataclass(slots=True, eq=False, kw_only=True)
class Stream:
    """What the reader of one request has been sent. Only the socket thread uses it.

    `text` is the reply that the model has read, in whole characters; `offset` bytes of it were sent.
    """

    request: wire.Request
    wanted: bool
    save: str = ""
    credit: int = 0
    attempt: int = 1
    seq: int = 0
    offset: int = 0
    text: bytearray = field(default_factory=bytearray)
    tokens: int = 0
    progress: tuple[int, int] = (0, 0)
    told: tuple[int, int] = (0, 0)

    def resume(self, message: wire.Credit) -> None:
        """The reader came back, or granted more credit."""
        if not message.attempt:
            self.credit += message.n
            return
        self.attempt = message.attempt
        self.credit = message.n
        self.seq = message.seq
        self.offset = min(message.have, len(self.text))
        self.told = (0, 0)

    def reset(self) -> None:
        """The connection broke: what was sent may be lost, so send nothing until the broker says where to continue."""
        self.credit = self.seq = self.offset = 0

    def mark(self) -> tuple[int, int, int, tuple[int, int]]:
        """What `back` needs to undo the next PARTIAL if it cannot be sent."""
        return self.seq, self.offset, self.credit, self.told

    def back(self, mark: tuple[int, int, int, tuple[int, int]]) -> None:
        self.seq, self.offset, self.credit, self.told = mark

    def partial(self, epoch: int) -> tuple[wire.Partial, list[bytes]] | None:
        """The next PARTIAL, with everything since the last one; None without news or credit."""
        if not self.wanted or self.credit <= 0:
            return None
        if self.offset < len(self.text):
            piece = bytes(self.text[self.offset : self.offset + wire.MAX_PAYLOAD])
            message = wire.Partial(self.request.id, self.seq + 1, self.attempt, epoch, self.offset, self.tokens)
            self.offset += len(piece)
            payloads = [piece]
        elif self.progress != self.told:
            done, total = self.told = self.progress
            message = wire.Partial(
                self.request.id, self.seq + 1, self.attempt, epoch, self.offset, done=done, total=total
            )
            payloads = []
        else:
            return None
        self.seq += 1
        self.credit -= 1
        return message, payloads
