"""What slow peers have no room for: kept in order for a while, within a number of messages and of bytes for each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

MESSAGES = 4096
BYTES = 64 * 2**20


class Backlog:
    """The messages that wait for one peer."""

    def __init__(self) -> None:
        self._messages: deque[Sequence[bytes]] = deque()
        self._bytes = 0

    def add(self, frames: Sequence[bytes]) -> bool:
        """Keep one more; False where the peer has left more lying than is kept for it."""
        self._messages.append(frames)
        self._bytes += sum(map(len, frames))
        return len(self._messages) <= MESSAGES and (self._bytes <= BYTES or len(self._messages) == 1)

    @property
    def first(self) -> Sequence[bytes]:
        return self._messages[0]

    def sent(self) -> None:
        """The first one has gone out."""
        self._bytes -= sum(map(len, self._messages.popleft()))

    def __len__(self) -> int:
        return len(self._messages)
