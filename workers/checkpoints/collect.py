"""Garbage: what no name, history or hold reaches.

One transaction, in which no writer can take a hold, decides what goes and notes the files in `trash`. They are then
deleted in batches. Each batch is a transaction that looks again, since a writer may have made the same object again in
the meantime. A crash leaves rows in `trash` for the next run. Steps (tokens and text) stay while they are reachable.
Objects stay for the last steps of each name, for its history, for holds, and for opaque roots, which cannot be
replayed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssmprov.errors import Busy
from ssmprov.ops import Collected
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.files import locked
from workers.checkpoints.holds import drop_dead, standing
from workers.checkpoints.objects import Objects
from workers.checkpoints.seals import ROWS
from workers.checkpoints.weights import WeightFiles, garbage, sweep

BATCH = 64

PATIENCE_S = 2.0
PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class _Step:
    parent: int | None
    object: bytes
    stored: bool
    keep_always: bool  # an opaque root


@dataclass(frozen=True, slots=True)
class _Plan:
    doomed: list[int]  # steps to delete
    unstored: list[int]  # steps that lose their object
    kept: int  # objects that stay


def collect(
    catalogue: Catalogue,
    objects: Objects,
    weights: WeightFiles,
    holders: Path,
    lock: Path,
    keep_steps: int,
    *,
    dry_run: bool,
) -> Collected:
    """What was removed; files of weights count as objects.

    Raises Busy while another process has the store's lock, Corrupt if the catalogue is damaged.
    """
    with alone(lock):
        check(catalogue)
        if dry_run:
            return _preview(catalogue, objects, weights, holders, keep_steps)
        return _collect(catalogue, objects, weights, holders, keep_steps)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Hold the store's lock, so that no gc, repair or backup runs at the same time. Writers take it briefly before a
    hold.
    """
    until = time.monotonic() + PATIENCE_S
    with ExitStack() as held:
        while True:
            try:
                held.enter_context(locked(lock, wait=False))
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise Busy(
                        "another gc, a repair or a backup of this store is running: wait for it", retry_ms=1000
                    ) from error
                time.sleep(PAUSE_S)
        yield


def check(catalogue: Catalogue) -> None:
    """Raises Corrupt unless the catalogue is intact: what a damaged one does not reach may still be needed."""
    for (fault,) in catalogue.run("PRAGMA integrity_check(1)"):
        if fault != "ok":
            raise catalogue.damaged(fault)
    for table in ("steps", *ROWS):
        if broken := catalogue.broken(table):
            raise catalogue.damaged(f"a row of {table} ({broken[0]}) was changed")


def _preview(catalogue: Catalogue, objects: Objects, weights: WeightFiles, holders: Path, keep_steps: int) -> Collected:
    with standing(holders) as held, catalogue.view() as connection:
        steps = _steps(connection)
        plan = _plan(connection, steps, held, keep_steps)
        gone = set(plan.doomed) | set(plan.unstored)
        staying = {step.object.hex() for number, step in steps.items() if step.stored and number not in gone}
        found = [
            (path, object_id) for path, object_id in objects.files_found() if object_id and not _is_directory(path)
        ]
        sizes = [_size(path) for path, object_id in found if _goes(objects, path, object_id, held, staying)]
    sizes += map(_size, garbage(weights, objects, staying, held))  # may take longer than writers should have to wait
    return Collected(len(sizes), sum(sizes), len(plan.doomed), plan.kept)


def _collect(catalogue: Catalogue, objects: Objects, weights: WeightFiles, holders: Path, keep_steps: int) -> Collected:
    drop_dead(holders)
    with standing(holders) as held, catalogue.change() as connection:
        steps = _steps(connection)
        plan = _plan(connection, steps, held, keep_steps)
        gone = [number for number in (*plan.doomed, *plan.unstored) if steps[number].stored]
        connection.executemany("INSERT OR IGNORE INTO trash VALUES (?)", [(steps[number].object,) for number in gone])
        for number in plan.unstored:
            connection.execute("UPDATE steps SET stored = 0 WHERE number = ?", (number,))
            catalogue.seal("steps", "number", number)
        connection.executemany("DELETE FROM steps WHERE number = ?", [(number,) for number in plan.doomed])
        catalogue.sweep_outcomes()
    trash = [object_id.hex() for (object_id,) in catalogue.run("SELECT object FROM trash")]
    count, size = _delete(catalogue, objects, holders, [(objects.path(object_id), object_id) for object_id in trash])
    stored = {object_id.hex() for (object_id,) in catalogue.run("SELECT object FROM steps WHERE stored")}
    strays = [
        (path, object_id)
        for path, object_id in objects.files_found()
        if object_id and (object_id not in stored or path != objects.path(object_id)) and not _is_directory(path)
    ]
    stray_count, stray_size = _delete(catalogue, objects, holders, strays)
    weights_count, weights_size = sweep(catalogue, objects, holders, weights)
    catalogue.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return Collected(count + stray_count + weights_count, size + stray_size + weights_size, len(plan.doomed), plan.kept)


def _is_directory(path: Path) -> bool:
    """Whether it is a directory, which ssmprov never makes here: `verify --repair` moves it away."""
    return path.is_dir() and not path.is_symlink()


def _steps(connection: sqlite3.Connection) -> dict[int, _Step]:
    rows = connection.execute("SELECT number, parent, object, stored, opaque AND parent IS NULL FROM steps")
    return {number: _Step(parent, *rest) for number, parent, *rest in rows}


def _plan(connection: sqlite3.Connection, steps: dict[int, _Step], held_objects: set[str], keep_steps: int) -> _Plan:
    heads = _numbers(connection, "SELECT DISTINCT step FROM names")
    former = _numbers(connection, "SELECT DISTINCT step FROM history")
    held = [number for number, step in steps.items() if step.object.hex() in held_objects] if held_objects else []
    reachable: set[int] = set()
    for tip in (*heads, *former, *held):
        step: int | None = tip
        while step is not None and step not in reachable:
            reachable.add(step)
            step = steps[step].parent
    kept = {*former, *held, *(number for number in reachable if steps[number].keep_always)}
    for head in heads:
        step = head
        for _ in range(keep_steps):
            if step is None:
                break
            kept.add(step)
            step = steps[step].parent
    return _Plan(
        doomed=sorted(steps.keys() - reachable, reverse=True),  # children before their parents
        unstored=[number for number in reachable - kept if steps[number].stored],
        kept=sum(steps[number].stored for number in kept),
    )


def _numbers(connection: sqlite3.Connection, sql: str) -> list[int]:
    return [number for (number,) in connection.execute(sql)]


def _delete(catalogue: Catalogue, objects: Objects, holders: Path, files: list[tuple[Path, str]]) -> tuple[int, int]:
    """Delete those that are still not wanted; return how many there were, and their bytes."""
    count = size = 0
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        with standing(holders) as held, catalogue.change() as connection:
            stored = _stored(connection, {object_id for _, object_id in batch})
            for path, object_id in batch:
                if _goes(objects, path, object_id, held, stored) and path.exists():
                    count += 1
                    size += _size(path)
                    objects.files.unlink(path)
                connection.execute("DELETE FROM trash WHERE object = ?", (bytes.fromhex(object_id),))
    return count, size


def _goes(objects: Objects, path: Path, object_id: str, held: set[str], stored: set[str]) -> bool:
    """Whether a file is garbage: no stored object has it, or it is temporary and its writer is dead."""
    return object_id not in held and (object_id not in stored or path != objects.path(object_id))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:  # a writer has just renamed it
        return 0


def _stored(connection: sqlite3.Connection, object_ids: Iterable[str]) -> set[str]:
    sql = "SELECT 1 FROM steps WHERE object = ? AND stored"
    return {object_id for object_id in object_ids if connection.execute(sql, (bytes.fromhex(object_id),)).fetchone()}
