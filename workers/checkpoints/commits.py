"""Commits: several contexts are made durable together, each completely or not at all.

First each one is prepared and its object is written. Then the objects are flushed side by side, so that the log of the
disk takes them together. Then one transaction, with a savepoint for each, moves all the names. An object is durable
before the row that names it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ssmprov.errors import SsmprovError
from ssmprov.names import check_name
from workers.checkpoints import objects
from workers.checkpoints.catalogue import Above, Catalogue
from workers.checkpoints.holds import Holds
from workers.checkpoints.lineage import StepRecord, record_of
from workers.checkpoints.objects import Objects, Writing
from workers.checkpoints.results import Commit, Committed, Expect
from workers.context import Identity

T = TypeVar("T")

FLUSHERS = 8
"""Objects that are flushed side by side: as many as a worker has slots by default."""


@dataclass(slots=True, kw_only=True)
class _Prepared:
    commit: Commit
    record: StepRecord
    above: Above
    object_id: str
    data: bytes


class Commits:
    """The commits of one process."""

    def __init__(self, catalogue: Catalogue, objects: Objects, holds: Holds, keep_steps: int) -> None:
        self._catalogue = catalogue
        self._objects = objects
        self._holds = holds
        self._keep_steps = keep_steps
        self._flushers = ThreadPoolExecutor(FLUSHERS, "flush")

    def close(self) -> None:
        self._flushers.shutdown()

    def make(self, commits: Sequence[Commit], identity: Identity) -> list[Committed | SsmprovError]:
        """Make the commits. Returns the result or the error of each, in their order."""
        found = [_attempt(partial(self._prepare, commit, identity)) for commit in commits]
        with ExitStack() as open_:
            ready = {each.object_id: each for each in found if isinstance(each, _Prepared)}
            failed = self._write(ready.values(), open_)
            wanted = [each for each in found if isinstance(each, _Prepared) and each.object_id not in failed]
            done = iter(self._insert(wanted, identity))
            return [
                each if not isinstance(each, _Prepared) else failed.get(each.object_id) or next(done) for each in found
            ]

    def _prepare(self, commit: Commit, identity: Identity) -> _Prepared | Committed:
        check_name(commit.name, reserved=True)
        if (former := self._former(commit)) is not None:  # first: an earlier attempt may have moved the name
            return former
        record = record_of(commit.snapshot, commit.read, identity.dtype)
        self._expect(commit)  # before megabytes are written; the transaction checks again
        above = self._catalogue.above(record, identity)
        data = objects.encode(commit.snapshot, record, identity, above.lineage)
        return _Prepared(commit=commit, record=record, above=above, object_id=objects.name_of(data), data=data)

    def _former(self, commit: Commit) -> Committed | None:
        """The outcome of an earlier commit for the same request, or what was settled for it."""
        if commit.request is None or (answer := self._catalogue.outcome(commit.request.id)) is None:
            return None
        return Committed("", answer, duplicate=True)

    def _expect(self, commit: Commit) -> None:
        if not isinstance(commit.expect, Expect):
            self._catalogue.expect_head(commit.name, commit.expect)

    def _write(self, ready: Iterable[_Prepared], open_: ExitStack) -> dict[str, SsmprovError]:
        """Make the objects durable, and hold them until `open_` is closed; return the errors of those that failed."""
        failed: dict[str, SsmprovError] = {}
        writings: dict[str, Writing] = {}

        def begin(each: _Prepared) -> Writing:
            open_.enter_context(self._holds.hold(each.object_id))
            return open_.enter_context(self._objects.writing(each.object_id, each.data))

        for each in ready:
            begun = _attempt(partial(begin, each))
            if isinstance(begun, SsmprovError):
                failed[each.object_id] = begun
            else:
                writings[each.object_id] = begun
        for step in (self._objects.flush, self._objects.settle):
            for object_id, error in self._side_by_side(step, writings).items():
                failed[object_id] = error
                del writings[object_id]
        return failed

    def _side_by_side(self, step: Callable[[Writing], None], writings: dict[str, Writing]) -> dict[str, SsmprovError]:
        run = map if len(writings) == 1 else self._flushers.map
        results = run(lambda writing: _attempt(partial(step, writing)), writings.values())
        return {id_: error for id_, error in zip(writings, list(results), strict=True) if error is not None}

    def _insert(self, wanted: Sequence[_Prepared], identity: Identity) -> list[Committed | SsmprovError]:
        """One transaction for all; one that fails does not affect the others."""
        if not wanted:
            return []
        try:
            with self._catalogue.change():
                if len(wanted) == 1:
                    return [self._insert_one(wanted[0], identity)]
                return [self._catalogue.apart(partial(self._insert_one, each, identity)) for each in wanted]
        except SsmprovError as error:  # of this one, or of the catalogue: nothing was committed
            return [error for _ in wanted]

    def _insert_one(self, each: _Prepared, identity: Identity) -> Committed:
        commit, key = each.commit, each.commit.request
        if (former := self._former(commit)) is not None:
            return former
        self._expect(commit)
        size = len(each.data)
        step = self._catalogue.add_step(each.object_id, each.record, identity, size, time.time(), each.above)
        self._catalogue.move(commit.name, step, self._keep_steps)
        if key is None:
            return Committed(each.object_id, b"")
        answer = commit.answer(each.object_id)
        self._catalogue.add_outcome(key.id, answer, key.expires_s)
        return Committed(each.object_id, answer)


def _attempt(action: Callable[[], T]) -> T | SsmprovError:
    try:
        return action()
    except SsmprovError as error:
        return error
