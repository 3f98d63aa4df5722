"""A backup of a store while it serves. The backup is a store; the next backup replaces it completely or not at all.

The catalogue is copied as of one moment, then the objects that it names. The store's lock is shared meanwhile, so that
no gc removes them; turns continue. Objects never change, so those that the backup already has are not copied again. A
new catalogue replaces the old one only when all its objects are there.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ssmprov.causes import explained, shown
from ssmprov.errors import BadRequest, Corrupt, Refused
from ssmprov.ops import BackedUp
from workers.checkpoints.build import SUCCESSOR, building, succeed
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.files import Files, in_use, locked, usable
from workers.checkpoints.objects import Objects
from workers.checkpoints.schema import finish_succession, make_directories, open_catalogue
from workers.checkpoints.weights import FOLDER, WeightFiles, copy, garbage

_CHUNK = 1 << 20


def backup(source: Path, lock: Path, catalogue: Catalogue, objects: Objects, target: Path, files: Files) -> BackedUp:
    """Copy the open store in `source`, whose lock is `lock`, to `target`.

    Raises BadRequest, Refused (`target` holds another store or something else), Busy, NoSpace, Corrupt.
    """
    if source.resolve() in (target.resolve(), *target.resolve().parents):
        raise BadRequest(f"{target} is inside the store: choose another place for the backup, ideally on another disk")
    path = target / "catalogue.sqlite"
    there = _check_target(target, path, catalogue.meta("uuid") or "", files)
    with usable(target):
        make_directories(target, files)
    with in_use(target, alone=True), locked(lock, shared=True):
        return _copy(source, catalogue, objects, target, path, files, there)


def _check_target(target: Path, path: Path, uuid: str, files: Files) -> bool:
    """Whether `target` holds an earlier backup of the same store. Raises Refused for anything else."""
    try:
        names = {each.name for each in target.iterdir()}
    except FileNotFoundError:
        return False
    except OSError as error:
        raise explained(error, f"{shown(target)} cannot hold a backup", target) from error
    if path.name not in names and SUCCESSOR not in names:
        begun = {"objects", "holders", "in-use", "lock", "settings", FOLDER, "catalogue.new", "catalogue.new-wal"}
        if names - begun:
            raise Refused(f"{target} is neither empty nor a backup: choose an empty directory")
        return False
    with in_use(target):
        finish_succession(path, target / "lock", files)
        with closing(Catalogue(path, open_catalogue(path, target / "lock", files))) as former:
            if former.meta("uuid") != uuid:
                raise Refused(f"{target} holds another store's checkpoints: choose another directory")
    return True


def _copy(
    source: Path, catalogue: Catalogue, objects: Objects, target: Path, path: Path, files: Files, there: bool
) -> BackedUp:
    done = BackedUp(objects=0, bytes=0)
    copies, weights = Objects(target / "objects", files), WeightFiles(target / FOLDER, files)
    with building(path.with_name(SUCCESSOR), files) as connection:
        catalogue.copy_to(connection)
        connection.execute("DELETE FROM trash")
        wanted = dict(_stored(connection))
        for object_id, size in wanted.items():
            done.objects += 1
            done.bytes += size
            if not _has(copies, object_id, size):
                _copy_object(objects, copies, object_id, size, done)
        done.faults += copy(WeightFiles(source / FOLDER, files), weights)
        _copy_settings(source / "settings", target / "settings", files)
    succeed(path, files)
    if there:
        done.removed = _prune(copies, wanted)
        for unnamed in garbage(weights, copies, wanted, held=set()):
            weights.remove(unnamed)
            done.removed += 1
    return done


def _stored(connection: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    for object_id, size in connection.execute("SELECT object, bytes FROM steps WHERE stored ORDER BY number"):
        yield object_id.hex(), size


def _has(copies: Objects, object_id: str, size: int) -> bool:
    """Whether an earlier backup copied it: a file of this name and size, which was hashed when it was written."""
    path = copies.path(object_id)
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


def _copy_object(objects: Objects, copies: Objects, object_id: str, size: int, done: BackedUp) -> None:
    try:
        with objects.opened(object_id) as fd:
            path = copies.path(object_id)
            with usable(path):
                copies.files.make_directory(path.parent)
                digest = hashlib.sha256()
                with copies.files.replacing(path, copies.temporary(object_id)) as write:
                    while chunk := os.read(fd, _CHUNK):
                        digest.update(chunk)
                        write(chunk)
                    if digest.hexdigest() != object_id:
                        raise objects.corrupt(object_id, "its bytes do not match its hash")
    except Corrupt as error:
        done.faults.append(f"{objects.path(object_id)} was not copied: {error.details.get('what', error.message)}")
        return
    done.copied += 1
    done.copied_bytes += size


def _copy_settings(source: Path, target: Path, files: Files) -> None:
    """Copy the sampling sets, which are small files."""
    if not source.is_dir():
        return
    with usable(target):
        files.make_directory(target)
        for each in sorted(source.glob("*.json")):
            if each.is_file() and not each.is_symlink():
                temporary = target / f".{each.name}.tmp"
                files.unlink(temporary)  # left by a backup that was stopped
                with files.replacing(target / each.name, temporary) as write:
                    write(each.read_bytes())


def _prune(copies: Objects, wanted: dict[str, int]) -> int:
    """Delete what the new catalogue does not name."""
    count = 0
    for path, object_id in list(copies.files_found()):
        if object_id and (object_id not in wanted or path != copies.path(object_id)):
            copies.files.unlink(path)
            count += 1
    return count
