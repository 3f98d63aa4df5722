"""The state cache: snapshots in memory, with a budget in bytes. The least recently used ones go first.

It holds two kinds. Committed snapshots are found by their object id. States after a prompt are never durable; they are
found by the object that their turn began from and the tokens read since. A turn that reads the same again, such as a
reroll with another seed, continues from there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from workers.context import Snapshot

Key = tuple[str, bytes]
"""An object id, and the tokens (int32) read after it; b'' for a committed snapshot."""


class StateCache:
    """Used by the store thread and the model thread; any thread may read `bytes`."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[Key, Snapshot] = OrderedDict()
        self._lock = threading.Lock()
        self.bytes = 0

    def get(self, object_id: str) -> Snapshot | None:
        with self._lock:
            return self._get((object_id, b""))

    def put(self, snapshot: Snapshot) -> None:
        """Keep a committed snapshot, unless it is larger than the whole budget."""
        with self._lock:
            self._put((snapshot.object, b""), snapshot)

    def find(self, object_id: str, tokens: bytes) -> Snapshot | None:
        """The state that has read the most of these tokens after that object; its `tokens` says how many."""
        with self._lock:
            found = [key for key in self._states if key[1] and key[0] == object_id and tokens.startswith(key[1])]
            return self._get(max(found, key=lambda key: len(key[1]))) if found else None

    def keep(self, object_id: str, tokens: bytes, snapshot: Snapshot) -> None:
        """Keep the state after that object and these tokens."""
        with self._lock:
            self._put((object_id, tokens), snapshot)

    def __len__(self) -> int:
        return len(self._states)

    def _get(self, key: Key) -> Snapshot | None:
        found = self._states.get(key)
        if found:
            self._states.move_to_end(key)
        return found

    def _put(self, key: Key, snapshot: Snapshot) -> None:
        if self._get(key) is not None or _size(key, snapshot) > self._budget:
            return
        self._states[key] = snapshot
        self.bytes += _size(key, snapshot)
        while self.bytes > self._budget:
            self.bytes -= _size(*self._states.popitem(last=False))


def _size(key: Key, snapshot: Snapshot) -> int:
    return len(key[1]) + snapshot.state_bytes
