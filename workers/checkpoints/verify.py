"""Re-hash every object, compute every lineage again, and compare each row with its object."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ssmprov.errors import BadRequest, Corrupt, SsmprovError
from ssmprov.ops import Verified
from ssmprov.textdigest import stored, text_digest
from workers.checkpoints.catalogue import NAME, Catalogue
from workers.checkpoints.entries import ENTRY, Entry, entry_unchecked
from workers.checkpoints.lineage import ROOT_DIGEST
from workers.checkpoints.objects import Objects
from workers.checkpoints.queries import record
from workers.checkpoints.seals import ROWS, whole
from workers.checkpoints.weights import WeightFiles
from workers.checkpoints.weights import faults as weight_faults

MAX_FAULTS = 200
CHUNK = 256


def verify(catalogue: Catalogue, objects: Objects, weights: WeightFiles) -> Verified:
    """Reads everything and changes nothing; writers may continue."""
    result = Verified(objects=0, bytes=0)
    faults = [f"{catalogue.path}: {fault}" for fault in catalogue_faults(catalogue)]
    bad: dict[int, tuple[Entry, str]] = {}
    try:
        for number, step, fault in lineages(catalogue):
            if fault:
                faults.append(f"{catalogue.path}: step {f'#{step.object[:12]}' if step else number}: {fault}")
            if step and step.stored:
                result.objects += 1
                size, fault = object_fault(catalogue, objects, step)
                result.bytes += size
                if fault:
                    bad[step.number] = step, fault
        faults += weight_faults(catalogue, objects, weights)
    except Corrupt as error:  # damage of the catalogue; damage of an object is one fault among others
        faults.append(error.message)
    for step, fault in bad.values():
        try:
            faults.append(f"{fault}; {consequence(catalogue, step, bad)}")
        except Corrupt:  # of the catalogue, so nobody can tell
            faults.append(fault)
    told = {objects.path(step.object) for step, _ in bad.values()}
    for path, object_id in objects.files_found():
        if path not in told and (not object_id or path.is_symlink()):
            faults.append(f"{path} does not belong to this store: move it away")
    if len(faults) > MAX_FAULTS:
        faults[MAX_FAULTS:] = [f"and {len(faults) - MAX_FAULTS} more faults"]
    result.faults = faults
    return result


def bounded(found: Verified, chars: int = 20_000) -> Verified:
    """Cut to as many sentences as fit into one message."""
    for sentences in (found.faults, found.repairs):
        total = 0
        for index, sentence in enumerate(sentences):
            total += len(sentence.encode()) + 8
            if total > chars:
                sentences[index:] = [f"and {len(sentences) - index} more: `ssmprov ckpt verify --store DIR` lists all"]
                break
    return found


def catalogue_faults(catalogue: Catalogue) -> list[str]:
    """What is wrong with the file, and with each row except those of `steps`, which `lineages` reads."""
    faults = []
    try:
        faults += [row[0] for row in catalogue.run("PRAGMA integrity_check") if row[0] != "ok"]
        faults += [f"a row of {row[0]} points nowhere" for row in catalogue.run("PRAGMA foreign_key_check")]
    except Corrupt as error:
        faults.append(str(error.__cause__ or error))
    for table in ROWS:
        try:
            faults += [f"a row of {table} ({_shown(key)}) was changed" for key in catalogue.broken(table)]
        except Corrupt as error:
            faults.append(f"the rows of {table} cannot be read ({error.__cause__ or error})")
    with suppress(Corrupt):  # reported above
        sql = "SELECT n.name FROM names n LEFT JOIN steps s ON s.number = n.step WHERE s.object IS NOT n.object"
        faults += [f"the name {name!r} does not point where it was put" for (name,) in catalogue.run(sql)]
    return faults


def _shown(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)


def lineages(catalogue: Catalogue) -> Iterator[tuple[int, Entry | None, str]]:
    """The number of each step, the step unless its row was changed, and what is wrong with it; parents first."""
    last = 0
    while rows := catalogue.run(
        "SELECT e.*, p.lineage, p.tokens, p.text_bytes, p.text_digest, p.depth, p.root, p.opaque, r.tokens, r.text"
        " FROM entries e"
        " LEFT JOIN steps p ON p.number = e.parent_number LEFT JOIN reads r ON r.step = e.number"
        " WHERE e.number > ? ORDER BY e.number LIMIT ?",
        (last, CHUNK),
    ):
        for row in rows:
            if whole(row[:ENTRY]):
                step = entry_unchecked(row)
                yield step.number, step, _fault(step, row)
            else:
                yield row[0], None, "its row was changed"
        if rows[-1][0] <= last:
            raise catalogue.damaged("its rows do not follow each other")
        last = rows[-1][0]


def _fault(step: Entry, row: Sequence[Any]) -> str:
    if row[-1] is None or row[-2] is None:
        return "its tokens and text are missing"
    before, tokens, length, digest, depth, root, opaque = row[-9:-2]
    try:
        read = record(step, *row[-2:])
        if step.parent:
            expected = (depth + 1, stored(length, digest).plus(read.text), root, bool(opaque))
        else:
            before, tokens = ROOT_DIGEST, 0
            expected = (1, text_digest(read.text), step.number, read.opaque)
        if read.digest(before) != step.lineage:
            return "its tokens, text or settings are not those that were committed"
        read.check(tokens)
    except (BadRequest, ValueError) as error:
        return str(error)
    counts = (step.depth, step.digest, step.root, step.opaque)
    if counts != expected or (step.step_tokens, step.step_bytes) != (read.step_tokens, len(read.text)):
        return "its counts do not add up"
    return ""


def object_fault(catalogue: Catalogue, objects: Objects, step: Entry) -> tuple[int, str]:
    """The size of a stored step's object, and what is wrong with it."""
    try:
        size, header = objects.check(step.object)
    except SsmprovError as error:
        # A gc at the same time may have collected it.
        collected = not catalogue.run("SELECT 1 FROM steps WHERE number = ? AND stored", (step.number,))
        what = error.details.get("what", error.message)
        if not isinstance(error, Corrupt):
            return 0, what
        return 0, "" if collected else f"{objects.path(step.object)} is damaged: {what}"
    claims = (header.parent, header.lineage, header.tokens, header.seed, header.exact, header.fingerprint, header.dtype)
    row = (step.parent, step.lineage.hex(), step.tokens, step.seed, step.exact, step.fingerprint, step.dtype)
    if size != step.size or claims != row:
        return size, f"{objects.path(step.object)} is damaged: it and its row in the catalogue disagree"
    return size, ""


def consequence(catalogue: Catalogue, step: Entry, bad: Container[int]) -> str:
    """What the damage of a step's object means, given that the objects of the steps `bad` are damaged."""
    hit = [
        name
        for name, head in heads(catalogue)
        if next((each.number for each in catalogue.lineage(head) if each.stored), None) == step.number
    ]
    whose = f"the state of {_listed(hit)}" if hit else "no name's current state"
    ancestor = sound_ancestor(catalogue, step, bad)
    if ancestor or not step.opaque:
        return f"{whose}; it can be read again from its tokens: `ssmprov ckpt verify --repair`"
    return (
        f"{whose}; it cannot be read again, because its root came without tokens and all its ancestors are "
        "damaged: restore the file from a backup"
    )


def heads(catalogue: Catalogue) -> Iterator[tuple[str, Entry]]:
    """Each name and the step that it points to."""
    sql = f"SELECT e.*, {NAME} FROM names n LEFT JOIN entries e ON e.number = n.step"  # noqa: S608 (our own words)
    for row in catalogue.run(sql):
        yield row[ENTRY], catalogue.named(row)


def sound_ancestor(catalogue: Catalogue, step: Entry, bad: Container[int]) -> Entry | None:
    """The nearest ancestor whose object is stored and intact."""
    above = itertools.islice(catalogue.lineage(step), 1, None)
    return next((each for each in above if each.stored and each.number not in bad), None)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
