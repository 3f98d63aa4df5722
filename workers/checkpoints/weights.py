"""Weights that states name: files named by the SHA-256 of their bytes, in the folder `weights` of the store.

A state with the array `weights` is read with these instead of the model's own. Like objects they never change, and
whoever is about to commit a state that names some holds them first. Files that no stored object names are garbage.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from ssmprov.causes import circumstance
from ssmprov.errors import Corrupt, NotFound
from workers.checkpoints.catalogue import Catalogue
from workers.checkpoints.files import Files, usable
from workers.checkpoints.holds import standing
from workers.checkpoints.objects import MAX_HEADER, Objects
from workers.context import WEIGHTS

FOLDER = "weights"
ID_BYTES = 32
_FILE = re.compile(r"([0-9a-f]{64})\.(?:safetensors|[0-9a-f]{16}\.tmp)\Z")


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int]


class _Layout(msgspec.Struct):
    weights: _Tensor | None = msgspec.field(default=None, name=f"state.{WEIGHTS}")


class WeightFiles:
    """The files of one folder; the first file makes the folder."""

    def __init__(self, directory: Path, files: Files | None = None) -> None:
        self.directory = directory
        self._files = files or Files()

    def path(self, weights_id: str) -> Path:
        return self.directory / f"{weights_id}.safetensors"

    def read(self, weights_id: str) -> bytes:
        """The bytes of a file; they match its id. Raises NotFound, and Corrupt that names the file."""
        path = self.path(weights_id)
        try:
            fd = self._files.open(path)
        except FileNotFoundError:
            raise NotFound(
                f"the weights {weights_id[:12]} of this context are not here: import its state file first, under any "
                "name (`ssmprov ckpt import FILE NAME`)"
            ) from None
        except OSError as error:
            raise circumstance(error, path) or _corrupt(path, f"it cannot be opened ({error.strerror})") from error
        with open(fd, "rb") as file:
            try:
                data = file.read()
            except OSError as error:
                raise circumstance(error, path) or _corrupt(path, f"it cannot be read ({error.strerror})") from error
        if hashlib.sha256(data).hexdigest() != weights_id:
            raise _corrupt(path, "its bytes do not match its hash")
        return data

    def write(self, weights_id: str, data: bytes) -> bool:
        """Make a file complete and durable; returns whether it was missing. Raises NoSpace, Unavailable."""
        path = self.path(weights_id)
        new = not os.path.lexists(path)
        with usable(path):
            self._files.place_directory(self.directory)
            self._files.sync_directory(self.directory.parent)  # its maker may have died before that
            with contextlib.suppress(NotFound, Corrupt):
                self.read(weights_id)
                self._files.sync_directory(self.directory)
                return False
            temporary = path.with_name(f"{weights_id}.{secrets.token_hex(8)}.tmp")
            with self._files.replacing(path, temporary) as write:
                write(data)
        return new

    def found(self) -> list[tuple[Path, str]]:
        """Each of our files in the folder, with the weights that it holds or was to hold."""
        try:
            paths = sorted(self.directory.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        matches = ((path, _FILE.match(path.name)) for path in paths if not path.is_dir())
        return [(path, match[1]) for path, match in matches if match]

    def ids(self) -> set[str]:
        """The weights that are here, including damaged ones."""
        return {weights_id for path, weights_id in self.found() if path == self.path(weights_id)}

    def remove(self, path: Path) -> int:
        """Delete a file; returns its size in bytes."""
        with contextlib.suppress(FileNotFoundError):
            size = path.lstat().st_size
            self._files.unlink(path)
            return size
        return 0


def sweep(
    catalogue: Catalogue, objects: Objects, holders: Path, weights: WeightFiles, *, only: str = ""
) -> tuple[int, int]:
    """Delete the files that no stored object names and nobody holds; return how many, and their bytes.

    `only` limits this to these weights. If an object cannot be read, it may name any weights, so nothing is deleted.
    """
    files = [(path, weights_id) for path, weights_id in weights.found() if only in ("", weights_id)]
    doubtful = {weights_id for _, weights_id in files}
    seen = _stored(catalogue)
    if not files or not _leave_unnamed(doubtful, objects, seen) or not _goes(files, doubtful, weights):
        return 0, 0
    with standing(holders) as held, catalogue.change():  # nobody commits now, and nobody begins to write any
        if not _leave_unnamed(doubtful, objects, _stored(catalogue) - seen):
            return 0, 0
        gone = [path for path in _goes(files, doubtful, weights) if _id_of(path) not in held]
        return len(gone), sum(weights.remove(path) for path in gone)


def garbage(weights: WeightFiles, objects: Objects, stored: Iterable[str], held: set[str]) -> list[Path]:
    """What `sweep` would delete if these objects were stored."""
    files = weights.found()
    doubtful = {weights_id for _, weights_id in files}
    if not files or not _leave_unnamed(doubtful, objects, stored):
        return []
    return [path for path in _goes(files, doubtful, weights) if _id_of(path) not in held]


def faults(catalogue: Catalogue, objects: Objects, weights: WeightFiles) -> list[str]:
    """A sentence for each file that is damaged, and for all missing weights that stored objects name."""
    found = []
    for weights_id in sorted(weights.ids()):
        try:
            weights.read(weights_id)
        except NotFound:  # a gc at the same time has collected it
            continue
        except Corrupt as error:
            found.append(error.message)
    named = set()
    for object_id in _stored(catalogue):
        with contextlib.suppress(Corrupt):  # reported with the object
            named.add(_named_by(objects, object_id))
    for weights_id in sorted(named - weights.ids() - {""}):
        found.append(
            f"{weights.path(weights_id)} is missing: contexts with these weights cannot be read until their state "
            "file is imported again, under any name, or the file is restored from a backup"
        )
    return found


def _goes(files: list[tuple[Path, str]], unnamed: set[str], weights: WeightFiles) -> list[Path]:
    """Files of unnamed weights, and temporary files; the files of a living writer are held."""
    return [path for path, weights_id in files if weights_id in unnamed or path != weights.path(weights_id)]


def _id_of(path: Path) -> str:
    return path.name.partition(".")[0]


def _stored(catalogue: Catalogue) -> set[str]:
    return {object_id.hex() for (object_id,) in catalogue.run("SELECT object FROM steps WHERE stored")}


def _leave_unnamed(ids: set[str], objects: Objects, stored: Iterable[str]) -> bool:
    """Take out of `ids` what one of the objects names; False if an object cannot be read."""
    for object_id in stored:
        if not ids:
            break
        try:
            ids.discard(_named_by(objects, object_id))
        except Corrupt:
            return False
    return True


def _named_by(objects: Objects, object_id: str) -> str:
    """The weights that an object names, or ''. Raises Corrupt."""
    with objects.opened(object_id) as fd:
        size = int.from_bytes(os.pread(fd, 8, 0), "little")
        try:
            layout = msgspec.json.decode(os.pread(fd, min(size, MAX_HEADER), 8), type=_Layout)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise objects.corrupt(object_id, "it is not a checkpoint of ssmprov") from error
        if layout.weights is None:
            return ""
        return os.pread(fd, ID_BYTES, 8 + size + layout.weights.data_offsets[0]).hex()


def _corrupt(path: Path, what: str) -> Corrupt:
    return Corrupt(
        f"{path} is damaged: {what}. Contexts with these weights cannot be read until their state file is imported "
        "again, under any name, or the file is restored from a backup",
        file=str(path),
        what=what,
    )


def copy(source: WeightFiles, target: WeightFiles) -> Iterator[str]:
    """Copy to `target` what `source` holds; return a sentence for each damaged file. Raises NoSpace."""
    for weights_id in sorted(source.ids()):
        try:
            target.write(weights_id, source.read(weights_id))
        except NotFound:  # from an import that was rejected in the meantime: no checkpoint names it
            continue
        except Corrupt as error:
            yield f"{source.path(weights_id)} was not copied: {error.details['what']}"
