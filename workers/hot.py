"""Hot states: snapshots kept in memory under a byte budget, the least recently used ones let go first."""

from __future__ import annotations

from collections import OrderedDict

from workers.context import Snapshot


class HotStates:
    """Snapshots by object id. Used by the store thread alone, but for `bytes`, which anyone may read."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._states: OrderedDict[str, Snapshot] = OrderedDict()
        self.bytes = 0

    def get(self, object_id: str) -> Snapshot | None:
        found = self._states.get(object_id)
        if found:
            self._states.move_to_end(object_id)
        return found

    def put(self, snapshot: Snapshot) -> None:
        """Keep a committed snapshot. One that is larger than the whole budget is not kept."""
        if self.get(snapshot.object) is not None or snapshot.state_bytes > self._budget:
            return
        self._states[snapshot.object] = snapshot
        self.bytes += snapshot.state_bytes
        while self.bytes > self._budget:
            _, dropped = self._states.popitem(last=False)
            self.bytes -= dropped.state_bytes

    def __len__(self) -> int:
        return len(self._states)
