"""Repair of a damaged catalogue that nobody serves: rebuild its indexes, or build a new one from what can be trusted.

Nothing is guessed. A step goes into the new catalogue if its parent did, if its tokens, text and settings have the
digest that was committed, and if the seal of its row or the header of its object agrees. A name goes in if its row is
intact and its step went in. If the step is lost but the file of its object is intact, the name points to that state as
an opaque root: it continues, but what it has read is lost. The old catalogue is kept beside the new one.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ssmprov.errors import BadRequest, Corrupt, NotFound, SsmprovError, WrongModel
from ssmprov.names import check_model
from workers.checkpoints import objects as formats
from workers.checkpoints.build import SUCCESSOR, building, create_tables, succeed
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.entries import ENTRY, Entry, entry_unchecked
from workers.checkpoints.files import Files, in_use, locked, usable
from workers.checkpoints.lineage import ROOT_DIGEST, StepRecord
from workers.checkpoints.objects import Header, Objects
from workers.checkpoints.queries import record
from workers.checkpoints.schema import check_files, finish_succession, make_directories, open_catalogue, write_meta
from workers.checkpoints.scraps import Scraps
from workers.checkpoints.seals import whole
from workers.checkpoints.verify import catalogue_faults, lineages
from workers.context import Identity

SCRATCH = "repair-"
"""The beginning of the name of the directory in the store in which a repair works."""

RECOVERED = "recovered"
"""The beginning of the names given to states that lost their name."""


def mend_catalogue(directory: Path, model: str, files: Files) -> list[str]:
    """What was done, one sentence for each repair; nothing if the catalogue is intact.

    Raises Busy if any process has the store open, BadRequest if its model is neither known nor given.
    """
    path, lock = directory / "catalogue.sqlite", directory / "lock"
    if not any((directory / name).exists() for name in (path.name, SUCCESSOR, "objects")):
        raise NotFound(f"there is no store in {directory}: it has no {path.name}")
    with usable(directory):
        make_directories(directory, files)
    with in_use(directory):
        finish_succession(path, lock, files)
        if not faulty(path, lock, files):
            return []
    with in_use(directory, alone=True), locked(lock):
        check_files(path)
        if not path.exists():
            return [f"{path} was missing", *_rebuild(directory, path, path, model, files)]
        kept = _keep(path, files)
        if _reindexed(path, lock, files):
            return [f"the indexes of {path} were rebuilt; the old catalogue is kept as {kept}"]
        return [f"the damaged catalogue is kept as {kept}", *_rebuild(directory, path, kept, model, files)]


def faulty(path: Path, lock: Path, files: Files) -> bool:
    """Whether the catalogue cannot be opened or was changed. Raises Unsupported, Busy, Unavailable."""
    if not path.exists():
        return True
    try:
        with closing(Catalogue(path, open_catalogue(path, lock, files))) as catalogue:
            return not _sound(catalogue)
    except Corrupt:
        return True


def _sound(catalogue: Catalogue) -> bool:
    told = all(catalogue.meta(key) is not None for key in ("uuid", "model"))
    return told and not catalogue_faults(catalogue) and not any(fault for _, _, fault in lineages(catalogue))


def _keep(path: Path, files: Files) -> Path:
    """Copy the catalogue and its log under another name."""
    numbers = (path.with_name(f"{path.name}.damaged-{n}") for n in range(1, 1 << 20))
    kept = next(each for each in numbers if not os.path.lexists(each))
    with usable(kept):
        for suffix in ("-wal", ""):
            source = path.with_name(path.name + suffix)
            if source.exists():
                target = kept.with_name(kept.name + suffix)
                temporary = path.with_name("catalogue.kept.tmp")
                files.unlink(temporary)  # left by a repair that was stopped
                with source.open("rb") as read, files.replacing(target, temporary) as write:
                    while chunk := read.read(1 << 20):
                        write(chunk)
    return kept


def _reindexed(path: Path, lock: Path, files: Files) -> bool:
    """Whether new indexes were all that the catalogue needed."""
    try:
        with closing(Catalogue(path, open_catalogue(path, lock, files))) as catalogue:
            with catalogue.change() as connection:
                connection.execute("REINDEX")
            return _sound(catalogue)
    except Corrupt:
        return False


@dataclass(frozen=True, slots=True)
class _Claim:
    """A step of the old catalogue; its row, tokens and text match the digest in the row."""

    parent: str
    total: int
    digest: bytes


@dataclass(kw_only=True)
class _Found:
    """What the new catalogue has so far: steps by their old numbers, and by object."""

    by_number: dict[int, Entry] = field(default_factory=dict)
    by_object: dict[str, Entry] = field(default_factory=dict)
    continued: set[str] = field(default_factory=set)  # objects that others came from
    lost_above: set[str] = field(default_factory=set)  # parents of states whose steps are lost
    said: list[str] = field(default_factory=list)


def _rebuild(directory: Path, path: Path, kept: Path, model: str, files: Files) -> list[str]:
    objects = Objects(directory / "objects", files)
    for left in directory.glob(f"{SCRATCH}*"):  # left by a repair that was stopped
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=directory) as scratch, Scraps(kept, Path(scratch)) as scraps:
        meta = {key: value for key, value, _ in scraps.rows("meta")}
        meta["model"] = check_model(meta.get("model") or model) if meta.get("model") or model else ""
        if not meta["model"]:
            raise BadRequest(f"{path} no longer names its model: give it with --model")
        new_uuid = "uuid" not in meta
        meta.setdefault("uuid", str(uuid.uuid4()))
        found = _Found()
        with building(path.with_name(SUCCESSOR), files) as connection:
            create_tables(connection)
            write_meta(connection, meta)
            catalogue = Catalogue(path, connection)
            with catalogue.change():
                _steps(catalogue, objects, scraps, found)
                _names(catalogue, objects, scraps, found)
                _rest(catalogue, scraps, found)
    succeed(path, files)
    if new_uuid:
        found.said.append("the store's id was lost, so it has a new one")
    return found.said


def _steps(catalogue: Catalogue, objects: Objects, scraps: Scraps, found: _Found) -> None:
    """Go over the rows twice: first find those that can be trusted, then insert these."""
    identities = {(row[1], row[4]): Identity(row[1], row[2], row[3], row[4]) for row in scraps.rows("identities")}
    claims: dict[str, _Claim] = {}
    vouched: set[str] = set()
    for row in scraps.steps():
        _claim(objects, row[:ENTRY], row[ENTRY:], claims, vouched)
    for object_id in reversed(claims):  # a step that can be trusted also vouches for all that it came from
        if object_id in vouched:
            vouched.add(claims[object_id].parent)
    lost = 0
    for row in scraps.steps():
        step, read = row[:ENTRY], row[ENTRY:]
        object_id = step[1].hex() if isinstance(step[1], bytes) else ""
        if object_id not in claims or object_id not in vouched:
            lost += 1
            continue
        added = _insert(catalogue, objects, identities, step, read)
        if added is None:
            lost += 1
            continue
        found.by_number[step[0]] = found.by_object[object_id] = added
        found.continued.add(added.parent)
    found.said.append(f"{len(found.by_number)} steps were recovered with their tokens and texts, {lost} were not")


def _claim(
    objects: Objects, row: tuple[Any, ...], read: tuple[Any, ...], claims: dict[str, _Claim], vouched: set[str]
) -> None:
    try:
        step = entry_unchecked(row)
        if not whole(read) or len(step.object) != 64:
            return
        known = record(step, read[1], read[2])
        if known.parent and known.parent not in claims:
            return
        parent = claims[known.parent] if known.parent else _Claim("", 0, ROOT_DIGEST)
        known.check(parent.total)
        digest = known.digest(parent.digest)
    except (BadRequest, ValueError, TypeError, AttributeError):  # errors that a changed row may cause
        return
    if digest != step.lineage:
        return
    claims[step.object] = _Claim(known.parent, known.total, digest)
    if whole(row):
        vouched.add(step.object)
    else:
        header = _header(objects, step.object)
        if header and (header.parent, header.lineage) == (known.parent, digest.hex()):
            vouched.add(step.object)


def _insert(
    catalogue: Catalogue,
    objects: Objects,
    identities: dict[tuple[str, str], Identity],
    row: tuple[Any, ...],
    read: tuple[Any, ...],
) -> Entry | None:
    """The step in the new catalogue; None if its model can no longer be found."""
    step = entry_unchecked(row)
    path = objects.path(step.object)
    kept = bool(step.stored) if whole(row) else path.exists()
    size = step.size if whole(row) or not kept else path.stat().st_size
    identity = identities.get((step.fingerprint, step.dtype))
    if identity is None and (header := _header(objects, step.object)) is not None:
        identity = Identity(header.fingerprint, header.architecture, header.layout, header.dtype)
    if identity is None:
        return None
    known = record(step, read[1], read[2])
    try:
        return catalogue.add_step(step.object, known, identity, size if kept else 0, float(step.created))
    except (NotFound, WrongModel):  # its parent is missing, or belongs to another model
        return None


def _header(objects: Objects, object_id: str) -> Header | None:
    """The header of an object whose file is intact."""
    try:
        return objects.check(object_id)[1]
    except SsmprovError:
        return None


def _names(catalogue: Catalogue, objects: Objects, scraps: Scraps, found: _Found) -> None:
    restored = 0
    for name, _, object_id, pinned, created, updated, _ in scraps.rows("names"):
        step = found.by_object.get(object_id.hex())
        if step is None:
            step = _opaque(catalogue, objects, object_id.hex(), found)
            if step is None:
                found.said.append(
                    f"the name {name} is lost: it was at #{object_id.hex()[:12]}, which cannot be recovered"
                )
                continue
            found.said.append(
                f"{name} still continues, but as an opaque root #{step.object[:12]}: its tokens and text were lost"
            )
        _name(catalogue, name, step, pinned, created, updated)
        restored += 1
    found.said.append(f"{restored} names were recovered")
    for name in scraps.unread_names:
        found.said.append(f"the name {name} is lost: its row cannot be read or was changed")
    if scraps.complete("steps") and scraps.complete("names"):
        return
    named = {row[0] for row in catalogue.run("SELECT step FROM names")}
    for object_id in _tips(objects, found):
        step = found.by_object.get(object_id) or _opaque(catalogue, objects, object_id, found)
        if step is not None and step.number not in named:
            name = f"{RECOVERED}/{object_id[:12]}"
            named.add(step.number)
            _name(catalogue, name, step, "", step.created, step.created)
            what = "a state whose text was lost" if step.opaque else "a checkpoint"
            found.said.append(f"{name} is {what} that no recovered name reaches: look at it, name it or remove it")


def _name(catalogue: Catalogue, name: str, step: Entry, pinned: str, created: float, updated: float) -> None:
    catalogue.run(
        "INSERT INTO names (name, step, object, pinned, created, updated) VALUES (?, ?, ?, ?, ?, ?)",
        (name, step.number, bytes.fromhex(step.object), pinned, created, updated),
    )
    catalogue.seal("names", "name", name)


def _tips(objects: Objects, found: _Found) -> list[str]:
    """Steps, and intact objects whose steps are lost, that nothing else came from."""
    lone: dict[str, Header] = {}
    for path, object_id in objects.files_found():
        if object_id and path == objects.path(object_id) and object_id not in found.by_object:
            header = _header(objects, object_id)
            if header is not None:
                lone[object_id] = header
    above = {header.parent for header in lone.values()} | found.lost_above
    return sorted((found.by_object.keys() - found.continued) | (lone.keys() - above))


def _opaque(catalogue: Catalogue, objects: Objects, object_id: str, found: _Found) -> Entry | None:
    """The state of an object, as a root; nobody knows what it has read."""
    header = _header(objects, object_id)
    if header is None:
        return None
    identity = Identity(header.fingerprint, header.architecture, header.layout, header.dtype)
    snapshot = formats.decode(objects.read(object_id), object_id, objects.path(object_id), identity)
    root = StepRecord(
        parent="",
        kind="import",
        tokens=b"",
        text=b"",
        settings={},
        seed=header.seed,
        total=header.tokens,
        exact=header.exact,
        dtype=header.dtype,
    )
    data = formats.encode(replace(snapshot, parent=""), root, identity, root.digest(ROOT_DIGEST))
    new = formats.name_of(data)
    objects.write(new, data)
    step = catalogue.add_step(new, root, identity, len(data), time.time())
    found.by_object[object_id] = found.by_object[new] = step
    found.lost_above.add(header.parent)
    return step


def _rest(catalogue: Catalogue, scraps: Scraps, found: _Found) -> None:
    names = {row[0] for row in catalogue.run("SELECT name FROM names")}
    kept = 0
    for number, name, step, _ in scraps.rows("history"):
        if step in found.by_number and name in names:
            catalogue.run(
                "INSERT INTO history (number, name, step) VALUES (?, ?, ?)",
                (number, name, found.by_number[step].number),
            )
            catalogue.seal("history", "number", number)
            kept += 1
    outcomes = list(scraps.rows("outcomes"))
    for row in outcomes:
        catalogue.run("INSERT INTO outcomes (request, answer, boot, until, lasts, seal) VALUES (?, ?, ?, ?, ?, ?)", row)
    found.said.append(f"{kept} former heads of names and {len(outcomes)} answers to requests were recovered")
