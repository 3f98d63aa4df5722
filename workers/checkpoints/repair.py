"""Repair of a store's files, even while it serves. It deletes only half-written files of killed writers.

If the file of a state is damaged or missing and its tokens can lead to it again, the state is marked as not stored: its
file moves to `quarantine/`, and the next load reads the tokens. If nothing can lead to it, it stays where it is and
loading it still fails. `salvage` repairs the catalogue itself, while nobody serves it; until then nothing here trusts a
damaged catalogue.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ssmprov.errors import Corrupt
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.collect import alone, check
from workers.checkpoints.entries import Entry
from workers.checkpoints.holds import standing
from workers.checkpoints.objects import Objects
from workers.checkpoints.verify import heads, lineages, object_fault, sound_ancestor


def repair(catalogue: Catalogue, objects: Objects, holders: Path, lock: Path) -> list[str]:
    """What was done, one sentence for each repair. Raises Busy."""
    done: list[str] = []
    with suppress(Corrupt):  # damage of the catalogue: `verify` reports it
        check(catalogue)
        found = [step for _, step, _ in lineages(catalogue) if step and step.stored]
        bad = {step.number: step for step in found if object_fault(catalogue, objects, step)[1]}
        with alone(lock):  # gc decides by the same rows and files
            done += _clear(catalogue, objects, holders)
            for sentence in _set_aside(catalogue, objects, holders, bad):
                done.append(sentence)  # record each one at once, in case the next one is interrupted
    return done


def _clear(catalogue: Catalogue, objects: Objects, holders: Path) -> list[str]:
    """Move away files that do not belong to the store, and remove what killed writers left."""
    done = []
    for path, object_id in list(objects.files_found()):
        if not os.path.lexists(path):
            continue  # its writer has just renamed it
        if not object_id or not stat.S_ISREG(path.lstat().st_mode):
            if object_id and path == objects.path(object_id) and _stored(catalogue, object_id):
                continue  # a damaged state like another
            done.append(f"{path} does not belong to this store: moved to {objects.quarantine(path)}")
        elif path != objects.path(object_id):
            with standing(holders) as held:
                if object_id not in held and path.exists():
                    objects.files.unlink(path)
                    done.append(f"{path} was left by a process that was killed: removed")
    return done


def _set_aside(catalogue: Catalogue, objects: Objects, holders: Path, bad: dict[int, Entry]) -> Iterator[str]:
    """Move away the damaged states that can be read again."""
    names: dict[int, list[str]] = {}
    if bad:
        for name, head in heads(catalogue):
            names.setdefault(head.number, []).append(name)
    for step in bad.values():
        ancestor = sound_ancestor(catalogue, step, bad)
        if ancestor or not step.opaque:  # otherwise nothing leads to it again
            yield from _one(catalogue, objects, holders, step, ancestor, names.get(step.number, []))


def _one(
    catalogue: Catalogue, objects: Objects, holders: Path, step: Entry, ancestor: Entry | None, names: list[str]
) -> list[str]:
    """Inside one change, so that nobody can begin to write the object again."""
    path = objects.path(step.object)
    with standing(holders) as held, catalogue.change():
        if step.object in held:
            return [f"{path} is damaged but in use: it was left as it is; repair again later"]
        _, fault = object_fault(catalogue, objects, step)
        if not fault:
            return []  # an equal commit has just written it again
        where = f"moved to {objects.quarantine(path)}" if os.path.lexists(path) else "it is missing"
        catalogue.run("UPDATE steps SET stored = 0 WHERE number = ?", (step.number,))
        catalogue.seal("steps", "number", step.number)
    whose = f" ({', '.join(names[:8])})" if names else ""
    start = f"#{ancestor.object[:12]}" if ancestor else "its beginning"
    return [f"{fault}: {where}; #{step.object[:12]}{whose} is read again from {start} when it is needed"]


def _stored(catalogue: Catalogue, object_id: str) -> bool:
    step = catalogue.by_object(object_id)
    return step is not None and step.stored
