"""The tasks of one model that wait for a worker, and which of them is next.

Each owner's tasks go in order of arrival. The owner with the fewest running slots is next; between equals, the one that
was served longest ago. So an owner with 256 queued turns does not make all others wait for them. The broker's own tasks
go first.
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from broker.records import HOUSE, Owner, Task, Worker

Lane = tuple[str, str]
"""What a task occupies of its worker, and the only worker that may take it. All tasks of a lane can start, or none."""


class Ready:
    """Tasks by owner and by lane, so that the next one is found without looking at all of them.

    The owners are kept in the order in which they were served. An owner that is served moves to the end.
    """

    def __init__(self) -> None:
        self._owners: dict[Owner, dict[Lane, list[Task]]] = {}
        self._lanes: Counter[Lane] = Counter()

    def add(self, task: Task, pinned: str) -> None:
        """Add a waiting task. `pinned` is the only worker that may take it, '' for any."""
        lane = (task.room, pinned)
        lanes = self._owners.setdefault(task.owner, {})
        insort(lanes.setdefault(lane, []), task, key=_order)
        self._lanes[lane] += 1

    def remove(self, task: Task) -> None:
        lanes = self._owners[task.owner]
        self._take_out(task, next(lane for lane, tasks in lanes.items() if task in tasks))

    def take(
        self,
        running: Mapping[Owner, int],
        full: set[Lane],
        choose: Callable[[Task], Worker | None],
        *,
        house_only: bool = False,
    ) -> tuple[Task, Worker] | None:
        """Take out the next task that a worker has room for, and return it with that worker.

        `running` counts the slots of each owner; `full` keeps the lanes without room from call to call.
        """
        for owner in [HOUSE] if house_only else self._in_turn(running):
            if self._lanes.keys() <= full:
                return None
            lanes = self._owners.get(owner, {})
            for lane in sorted(lanes.keys() - full, key=lambda lane: lanes[lane][0].order):
                task = lanes[lane][0]
                if (worker := choose(task)) is None:
                    full.add(lane)
                    continue
                self._take_out(task, lane)
                if lanes:
                    self._owners[owner] = self._owners.pop(owner)
                return task, worker
        return None

    def _in_turn(self, running: Mapping[Owner, int]) -> Iterator[Owner]:
        """The owners, those with the fewest slots first. One without any is found without looking at the others."""
        yield HOUSE
        yield from (owner for owner in self._owners if owner not in running)
        busy = [owner for owner in self._owners if owner in running]
        yield from sorted(busy, key=lambda owner: running[owner])

    def regroup(self, pin_of: Callable[[Task], str]) -> None:
        """Sort the tasks into lanes again, after pins have changed."""
        tasks = list(self)
        self._owners.clear()
        self._lanes.clear()
        for task in tasks:
            self.add(task, pin_of(task))

    def _take_out(self, task: Task, lane: Lane) -> None:
        lanes = self._owners[task.owner]
        lanes[lane].remove(task)
        self._lanes[lane] -= 1
        if not self._lanes[lane]:
            del self._lanes[lane]
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._owners[task.owner]

    def __iter__(self) -> Iterator[Task]:
        return (task for lanes in self._owners.values() for tasks in lanes.values() for task in tasks)

    def __bool__(self) -> bool:
        return bool(self._owners)


def _order(task: Task) -> int:
    return task.order
