"""Every object re-hashed, every lineage recomputed, and each row held against its object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ssmprov.errors import BadRequest, Corrupt, SsmprovError
from ssmprov.ops import Verified
from workers.checkpoints.catalogue import Catalogue, Entry, entry
from workers.checkpoints.lineage import ROOT_DIGEST
from workers.checkpoints.objects import Objects
from workers.checkpoints.queries import record

MAX_FAULTS = 200
CHUNK = 256


def verify(catalogue: Catalogue, objects: Objects) -> Verified:
    """Reads everything, changes nothing, and lets writers go on."""
    result = Verified(objects=0, bytes=0)
    faults = [f"{catalogue.path}: {row[0]}" for row in catalogue.run("PRAGMA quick_check") if row[0] != "ok"]
    faults += [
        f"{catalogue.path}: a row of {row[0]} points nowhere" for row in catalogue.run("PRAGMA foreign_key_check")
    ]
    try:
        for step, fault in _lineages(catalogue):
            if fault:
                faults.append(f"{catalogue.path}: step #{step.object[:12]}: {fault}")
            if step.stored:
                result.objects += 1
                size, fault = _object(catalogue, objects, step)
                result.bytes += size
                if fault:
                    faults.append(fault)
    except Corrupt as error:  # of the catalogue itself; an object's is a fault among others
        faults.append(error.message)
    for path, object_id in objects.files_found():
        if not object_id or path.is_symlink():
            faults.append(f"{path} is no object of this store: move it away")
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"and {len(faults) - MAX_FAULTS} more faults"]
    result.faults = faults
    return result


def _lineages(catalogue: Catalogue) -> Iterator[tuple[Entry, str]]:
    """Each step with what is wrong in its row, parents first."""
    last = 0
    while rows := catalogue.run(
        "SELECT e.*, p.lineage, p.tokens, p.text_bytes, p.depth, p.root, p.opaque, r.tokens, r.text FROM entries e"
        " LEFT JOIN steps p ON p.number = e.parent_number LEFT JOIN reads r ON r.step = e.number"
        " WHERE e.number > ? ORDER BY e.number LIMIT ?",
        (last, CHUNK),
    ):
        for row in rows:
            step = entry(row)
            yield step, _fault(step, row)
        last = rows[-1][0]


def _fault(step: Entry, row: Sequence[Any]) -> str:
    if row[-1] is None or row[-2] is None:
        return "its tokens and text are missing"
    before, tokens, text_bytes, depth, root, opaque = row[-8:-2]
    try:
        read = record(step, *row[-2:])
        if step.parent:
            expected = (depth + 1, text_bytes + len(read.text), root, bool(opaque))
        else:
            before, tokens = ROOT_DIGEST, 0
            expected = (1, len(read.text), step.number, read.opaque)
        if read.digest(before) != step.lineage:
            return "its tokens, text or settings are not those that were committed"
        read.check(tokens)
    except (BadRequest, ValueError) as error:
        return str(error)
    counts = (step.depth, step.text_bytes, step.root, step.opaque)
    if counts != expected or (step.step_tokens, step.step_bytes) != (read.step_tokens, len(read.text)):
        return "its counts do not add up"
    return ""


def _object(catalogue: Catalogue, objects: Objects, step: Entry) -> tuple[int, str]:
    try:
        size, header = objects.check(step.object)
    except SsmprovError as error:
        now = catalogue.by_object(step.object)
        collected = now is None or not now.stored  # by a gc that ran beside
        return 0, "" if collected else error.message
    claims = (header.parent, header.lineage, header.tokens, header.seed, header.exact, header.fingerprint, header.dtype)
    row = (step.parent, step.lineage.hex(), step.tokens, step.seed, step.exact, step.fingerprint, step.dtype)
    if size != step.size or claims != row:
        return size, f"{objects.path(step.object)} and its row in the catalogue disagree"
    return size, ""
