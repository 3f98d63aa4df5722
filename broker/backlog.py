"""Messages for slow peers: kept in order, up to a number of messages and bytes for each peer."""

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
        """Keep one more message. Returns False if more are waiting now than a peer may leave unread."""
        self._messages.append(frames)
        self._bytes += sum(map(len, frames))
        return len(self._messages) <= MESSAGES and (self._bytes <= BYTES or len(self._messages) == 1)

    @property
    def first(self) -> Sequence[bytes]:
        return self._messages[0]

    def sent(self) -> None:
        """The first message was sent."""
        self._bytes -= sum(map(len, self._messages.popleft()))

    def __len__(self) -> int:
        return len(self._messages)
