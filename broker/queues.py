"""Which task may use which name, and the answers that are kept for a resend."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from broker.records import Id, Task
from ssmprov import wire

OVERHEAD = 1000
"""About how many bytes a kept answer takes beside its own content."""


class NameLocks:
    """Shared and exclusive locks on names, granted strictly in order of arrival.

    A task enters the queues of all its names at once. It holds a name when no task before it in that queue conflicts,
    and is granted when it holds all of them. So no two tasks can wait for each other.
    """

    def __init__(self) -> None:
        self._queues: dict[tuple[str, str], deque[Task]] = {}

    def enter(self, task: Task) -> bool:
        """Queue a task. Returns whether it is granted at once."""
        keys = _keys(task)
        for key in keys:
            self._queues.setdefault(key, deque()).append(task)
        return not keys or self.granted(task)

    def granted(self, task: Task) -> bool:
        return all(self._holds(task, key) for key in _keys(task))

    def leave(self, task: Task) -> list[Task]:
        """Take a task out of all queues. Returns the tasks that are granted now."""
        candidates: dict[int, Task] = {}
        for key in _keys(task):
            queue = self._queues[key]
            queue.remove(task)
            if not queue:
                del self._queues[key]
            elif key[1] in queue[0].exclusive:
                candidates[queue[0].order] = queue[0]
            elif key[1] in task.exclusive:
                candidates.update((other.order, other) for other in _sharers(queue, key[1]))
        return [candidates[order] for order in sorted(candidates) if self.granted(candidates[order])]

    def seize(self, task: Task) -> None:
        """Put a running task in front of all others: its worker has held the names all along."""
        for key in _keys(task):
            queue = self._queues.setdefault(key, deque())
            if task in queue:
                queue.remove(task)
            queue.appendleft(task)

    def has(self, task: Task) -> bool:
        """Whether a task is in the queues of its names."""
        return all(task in self._queues.get(key, ()) for key in _keys(task))

    def _holds(self, task: Task, key: tuple[str, str]) -> bool:
        wants = key[1] in task.exclusive
        for other in self._queues[key]:
            if other is task:
                return True
            if wants or key[1] in other.exclusive:
                return False
        raise AssertionError("a task that is not queued cannot hold a name")

    def __len__(self) -> int:
        return len(self._queues)


def _sharers(queue: deque[Task], name: str) -> Iterator[Task]:
    """The tasks at a queue's front that share its name."""
    for task in queue:
        if name in task.exclusive:
            return
        yield task


def _keys(task: Task) -> list[tuple[str, str]]:
    model = task.request.model
    return [(model, name) for name in (*task.shared, *task.exclusive)]


class Answers:
    """The last terminal answers, complete, so that a resent request gets its answer again. Limited by bytes and age."""

    def __init__(self, max_bytes: int, max_age_s: float = 300.0) -> None:
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._kept: OrderedDict[Id, tuple[Id, float, wire.Final, list[bytes], int]] = OrderedDict()
        self.bytes = 0

    def keep(self, now: float, client: Id, final: wire.Final, payloads: list[bytes], header: int = 0) -> None:
        """Keep an answer; `header` is the size of its header, if that is known."""
        size = sum(map(len, payloads)) + (header or len(msgspec.msgpack.encode(final))) + OVERHEAD
        self.drop(final.id)
        if size > self._max_bytes:
            return
        self._kept[final.id] = (client, now, final, payloads, size)
        self.bytes += size
        self.expire(now)

    def find(self, request_id: Id, client: Id) -> tuple[wire.Final, list[bytes]] | None:
        kept = self._kept.get(request_id)
        return (kept[2], kept[3]) if kept and kept[0] in (client, wire.NOBODY) else None

    def __contains__(self, request_id: Id) -> bool:
        return request_id in self._kept

    def drop(self, request_id: Id) -> None:
        kept = self._kept.pop(request_id, None)
        if kept:
            self.bytes -= kept[4]

    def expire(self, now: float) -> None:
        while self._kept:
            oldest = next(iter(self._kept.values()))
            if self.bytes <= self._max_bytes and now - oldest[1] <= self._max_age_s:
                return
            self.drop(oldest[2].id)
