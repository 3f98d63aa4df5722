"""The history of a specialist: an append-only file with one record per line. A run's last record counts.

A run holds its lock while its process lives. If anyone can take the lock, the run has died: the
next start records that it failed. A line torn by a power cut is left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from specialists.stages import Kind, Stage
from ssmprov import durable, locks
from ssmprov.errors import BadRequest, Conflict, Corrupt, NotFound, nearest

SCHEMA = "ssmprov.run.v1"
STATE = "state.safetensors"
"""The file in a run's folder with the result of a run with gradients."""

MAX_LINE = 1 << 20
MAX_BYTES = 64 << 20
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,47}\Z")

Status = Literal["running", "completed", "failed"]


class Run(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One run and its current status. Times are ISO 8601 in UTC. `order` counts from 0.

    `made` is the object of the resulting checkpoint. `options` are explicit choices that carry a risk. `parent` is the
    run from which it continued. `loss` has the first, the final and the smallest value of its objective, the step of
    the smallest (from 1), and the trend. `kept` has the objects that were saved before `made`, by step.
    """

    schema: str = SCHEMA
    order: int
    id: str
    kind: Kind
    stage: Stage
    stage_pass: int
    status: Status
    started: str
    ended: str = ""
    why: str = ""
    parent: str = ""
    seed: int = 0
    model: str = ""
    data: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    tokens: int = 0
    steps: int = 0
    loss: dict[str, float] = {}
    made: str = ""
    kept: dict[str, str] = {}

    @property
    def label(self) -> str:
        return f"{self.stage}_{self.stage_pass}"

    def at(self, step: int) -> Run:
        """The run at a kept step, with its own id. Raises NotFound."""
        if step == self.steps and self.made:
            return self
        if str(step) not in self.kept:
            there = ", ".join([*self.kept, *([str(self.steps)] if self.made else [])]) or "none"
            raise NotFound(f"the run {self.id} kept no context at step {step}; it kept {there} (see `keep_every`)")
        return msgspec.structs.replace(self, id=f"{self.id}:{step}", steps=step, made=self.kept[str(step)])


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something done with a completed run: an evaluation, a promotion, a rollback."""

    schema: str = "ssmprov.event.v1"
    event: Literal["evaluated", "promoting", "promoted", "rolled_back", "refused"]
    run: str
    at: str
    details: dict[str, Any] = {}


Record = Run | Event


class Ledger:
    """The ledger of one specialist's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "ledger.jsonl"

    def records(self) -> list[Record]:
        """Every record in order. Raises Corrupt for an invalid line, except for a torn last one."""
        if not self.path.exists():
            return []
        if (size := self.path.stat().st_size) > MAX_BYTES:
            raise BadRequest(f"{self.path} has {size} bytes, more than {MAX_BYTES}: move old runs to another folder")
        lines = self.path.read_bytes().split(b"\n")
        lines.pop()  # after the last line break: empty, or an unfinished line
        return [self._record(number, line) for number, line in enumerate(lines, 1) if line.strip()]

    def _record(self, number: int, line: bytes) -> Record:
        try:
            content = msgspec.json.decode(line)
            kind: type[Record] = Event if "event" in content else Run
            return msgspec.convert(content, kind)
        except (msgspec.MsgspecError, TypeError) as error:
            raise Corrupt(f"{self.path}, line {number}, is not a valid record: {error}") from None

    def runs(self) -> list[Run]:
        """The runs in order, each in the state of its last record."""
        found: dict[str, Run] = {}
        for record in self.records():
            if isinstance(record, Run):
                found[record.id] = record
        return sorted(found.values(), key=lambda run: run.order)

    def events(self) -> list[Event]:
        return [record for record in self.records() if isinstance(record, Event)]

    def run(self, run_id: str) -> Run:
        """Raises NotFound."""
        runs = {run.id: run for run in self.runs()}
        if run_id not in runs:
            raise NotFound(f"there is no run {run_id!r}{nearest(run_id, runs)}")
        return runs[run_id]

    def latest(self, stage: Stage | None = None, stage_pass: int | None = None) -> Run:
        """The last completed run, of a stage and a pass if given. Raises NotFound."""
        runs = [
            run
            for run in self.runs()
            if run.status == "completed" and stage in (None, run.stage) and stage_pass in (None, run.stage_pass)
        ]
        if not runs:
            what = f"{stage or 'any stage'}{'' if stage_pass is None else f', pass {stage_pass}'}"
            raise NotFound(f"no run of {what} has completed: `ssmprov specialist runs` lists the runs")
        return runs[-1]

    def append(self, record: Record) -> None:
        """Write a record durably. If the last line is torn, end it first, so that the record gets its own line."""
        line = msgspec.json.encode(record)
        if len(line) > MAX_LINE:
            raise BadRequest(f"a record of {len(line)} bytes is too long for the ledger")
        new = not self.path.exists()
        with durable.naming(self.path), self.path.open("ab+") as file:
            locks.lock(file.fileno(), locks.EXCLUSIVE, self.path)
            end = file.seek(0, os.SEEK_END)
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    file.truncate(_end_of_last_line(file.name, end))
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            durable.sync(self.folder)

    # -- beginning and ending

    def begin(self, **fields: Any) -> Run:
        """Start a new run of a kind and stage and make its folder. Runs that died are recorded as failed."""
        self.bury()
        runs = self.runs()
        stage = fields["stage"]
        counted = sum(run.stage == stage and run.status != "failed" for run in runs)
        run = Run(order=len(runs), id=_new_id(runs), stage_pass=counted + 1, status="running", started=now(), **fields)
        self.directory(run.id).mkdir(parents=True)
        self.append(run)
        return run

    def again(self, stage: Stage, kind: Kind, holding: str) -> Run:
        """Continue the last failed run of a kind and stage whose folder holds a file; it is running again.

        Raises NotFound.
        """
        self.bury()
        found = [
            run
            for run in self.runs()
            if (run.stage, run.kind, run.status) == (stage, kind, "failed")
            and (self.directory(run.id) / holding).is_file()
        ]
        if not found:
            raise NotFound(f"there is no {kind} run of {stage} to continue: start one without --resume")
        run = found[-1]
        run.status, run.ended, run.why = "running", "", ""
        self.append(run)
        return run

    def bury(self) -> list[Run]:
        """Record as failed each run that says it is running but whose process is gone."""
        dead = []
        for run in self.runs():
            if run.status == "running" and not self._alive(run.id):
                run.status, run.ended, run.why = "failed", now(), "its process ended before the run was complete"
                self.append(run)
                dead.append(run)
        return dead

    def directory(self, run_id: str) -> Path:
        return self.folder / "runs" / run_id

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Hold a run's lock. Raises Conflict if another process holds it."""
        with _locked(self.directory(run_id) / "lock", f"the run {run_id} is in progress in another process"):
            yield

    def _alive(self, run_id: str) -> bool:
        try:
            with self.alive(run_id):
                return False
        except Conflict:
            return True
        except FileNotFoundError:  # its folder was removed
            return False


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the specialist's lock, so that nothing else runs on it. Raises Conflict."""
    with _locked(folder / ".lock", f"{folder.name}: another run of this specialist is in progress"):
        yield


@contextmanager
def _locked(path: Path, why: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            locks.lock(descriptor, locks.EXCLUSIVE | locks.NO_WAIT, path)
        except BlockingIOError:
            raise Conflict(f"{why}: wait until it ends, or stop it") from None
        yield
    finally:
        os.close(descriptor)


def _end_of_last_line(path: str, end: int) -> int:
    """The end of a file's last whole line."""
    with open(path, "rb") as file:
        file.seek(max(0, end - MAX_LINE - 1))
        start = file.tell()
        return start + file.read().rfind(b"\n") + 1


def _new_id(runs: list[Run]) -> str:
    """The time, and a number if several fall in one second."""
    stamp = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    taken = {run.id for run in runs}
    number = 1
    while (run_id := stamp if number == 1 else f"{stamp}_{number}") in taken:
        number += 1
    return run_id


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
