"""Immutable state objects: safetensors files named by the SHA-256 of their bytes.

    objects/ab/abcd....safetensors
        state.<name>    the arrays of the runtime
        logits          float32 [V], absent while nothing was read
        window          int32 [<= 64], the last tokens read
        __metadata__    one key, "ssmprov": a `Header` as canonical JSON

There is one metadata key because the library writes several keys in any order, and equal states must have equal bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ssmprov.causes import circumstance
from ssmprov.errors import BadRequest, Corrupt, Unsupported, WrongModel
from workers.checkpoints.files import Files, usable
from workers.checkpoints.lineage import StepRecord
from workers.context import WINDOW, Identity, Snapshot

FORMAT = 1
MAX_HEADER = 16 << 20
_CHUNK = 1 << 20
_STATE = "state."
_STORABLE = frozenset("?bBhHiIlLqQefd")
_OBJECT_FILE = re.compile(r"([0-9a-f]{64})\.(?:safetensors|[0-9a-f]{16}\.tmp)\Z")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """`parent` is the parent's object id and `lineage` the step's digest, so ids form a chain back to the root."""

    format: int
    fingerprint: str
    architecture: str
    layout: str
    dtype: str
    tokens: int
    seed: int | None
    parent: str
    exact: bool
    lineage: str


class _Outer(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__")


def encode(snapshot: Snapshot, record: StepRecord, identity: Identity, lineage: bytes) -> bytes:
    """The bytes of an object: equal for equal contexts, on any machine at any time. `lineage` is the step's digest."""
    header = Header(
        format=FORMAT,
        fingerprint=identity.fingerprint,
        architecture=identity.architecture,
        layout=identity.layout,
        dtype=record.dtype,
        tokens=record.total,
        seed=record.seed,
        parent=record.parent,
        exact=record.exact,
        lineage=lineage.hex(),
    )
    tensors: dict[str, NDArray[np.generic]] = {}
    for name, array in snapshot.arrays.items():
        if array.dtype.char not in _STORABLE:
            raise BadRequest(f"the state's array {name!r} has the type {array.dtype}, which a checkpoint cannot hold")
        tensors[_STATE + name] = array
    if snapshot.logits is not None:
        tensors["logits"] = np.asarray(snapshot.logits, np.float32)
    tensors["window"] = np.asarray(snapshot.window, np.int32)
    return save(tensors, {"ssmprov": msgspec.json.encode(header, order="sorted").decode()})


def name_of(data: bytes) -> str:
    """The id of an object with these bytes."""
    return hashlib.sha256(data).hexdigest()


def header_of(data: bytes, path: Path) -> Header:
    """The metadata at the beginning of an object's bytes. Raises Corrupt, or Unsupported for a newer format."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER, len(data) - 8):
        raise _corrupt(path, "it is cut short")
    try:
        text = msgspec.json.decode(data[8 : 8 + size], type=_Outer).metadata["ssmprov"]
        header = msgspec.json.decode(text, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError) as error:
        raise _corrupt(path, "it is not a checkpoint of ssmprov") from error
    if header.format != FORMAT:
        raise Unsupported(f"{path} has the format {header.format}; this version reads {FORMAT}: update ssmprov")
    return header


def decode(data: bytes, object_id: str, path: Path, identity: Identity) -> Snapshot:
    """The context in an object whose hash was checked. Raises WrongModel, Corrupt, Unsupported."""
    header = header_of(data, path)
    admit(header, object_id, identity)
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise _corrupt(path, "its arrays cannot be read") from error
    window = tensors.pop("window", None)
    logits = tensors.pop("logits", None)
    if window is None or window.dtype != np.int32 or window.ndim != 1 or len(window) > WINDOW:
        raise _corrupt(path, "its penalty window is malformed")
    if logits is not None and (logits.dtype != np.float32 or logits.ndim != 1):
        raise _corrupt(path, "its logits are not a row of float32")
    if not all(name.startswith(_STATE) for name in tensors):
        raise _corrupt(path, "it has arrays that do not belong to a state")
    return Snapshot(
        arrays={name.removeprefix(_STATE): array for name, array in tensors.items()},
        logits=logits,
        window=window,
        tokens=header.tokens,
        seed=header.seed,
        parent=header.parent,
        object=object_id,
        exact=header.exact and header.dtype == identity.dtype,
    )


def admit(header: Header, what: str, identity: Identity) -> None:
    """The identity gate: raise WrongModel unless weights, architecture and layout are those of the model."""
    theirs = (header.fingerprint, header.architecture, header.layout)
    if theirs != (identity.fingerprint, identity.architecture, identity.layout):
        raise WrongModel(
            f"checkpoint #{what[:12]} was made by another model: {header.architecture} {header.fingerprint[:12]} with "
            f"the state {header.layout!r}; the model here is {identity.architecture} {identity.fingerprint[:12]} with "
            f"{identity.layout!r}. Load it with its own model, or read its text into this one with "
            "`ssmprov ckpt replay THEIRS:NAME --to OURS --save NAME`",
            object=what,
            made_by=header.fingerprint,
            needed=identity.fingerprint,
        )


@dataclass(slots=True)
class Writing:
    """An object on its way to the disk: its bytes are in `temporary`, or already under its name if that is None."""

    path: Path
    temporary: Path | None
    fd: int


class Objects:
    """The objects of one store's directory."""

    def __init__(self, directory: Path, files: Files) -> None:
        self.directory = directory
        self.files = files
        self._durable: set[str] = set()  # the directories that this process knows to be durable

    def prepare(self) -> None:
        """Make the directories of all objects ahead, with one flush, so that no save has to. Raises NoSpace."""
        with usable(self.directory):
            prefixes = [f"{number:02x}" for number in range(256)]
            for prefix in prefixes:
                self.files.place_directory(self.directory / prefix)
            self.files.sync_directory(self.directory)
        self._durable.update(prefixes)

    def path(self, object_id: str) -> Path:
        return self.directory.joinpath(object_id[:2], f"{object_id}.safetensors")

    def write(self, object_id: str, data: bytes) -> None:
        """Make the object complete and durable; an existing one is kept if it is correct. Raises NoSpace."""
        with self.writing(object_id, data) as writing:
            self.flush(writing)
            self.settle(writing)

    @contextlib.contextmanager
    def writing(self, object_id: str, data: bytes) -> Iterator[Writing]:
        """Begin to write the object; the body flushes and then settles it. Raises NoSpace."""
        path = self.path(object_id)
        with usable(path):
            self._directory_of(path)
            if (fd := self._right(object_id, path, len(data))) >= 0:
                writing = Writing(path, None, fd)
            else:
                temporary = self.temporary(object_id)
                writing = Writing(path, temporary, self.files.create(temporary))
        try:
            if writing.temporary:
                with usable(path):
                    self.files.write(writing.fd, data)
            yield writing
        finally:
            os.close(writing.fd)
            if writing.temporary:
                with contextlib.suppress(OSError):
                    self.files.unlink(writing.temporary)

    def flush(self, writing: Writing) -> None:
        """Make the bytes durable, and let them appear under the object's name. Raises NoSpace."""
        with usable(writing.path):
            self.files.sync(writing.fd)
            if writing.temporary:
                self.files.rename(writing.temporary, writing.path)
                writing.temporary = None

    def settle(self, writing: Writing) -> None:
        """Make the object's name durable. Raises NoSpace."""
        with usable(writing.path):
            self.files.sync_directory(writing.path.parent)

    def _directory_of(self, path: Path) -> None:
        """The object's directory. The first time it is also made durable, since its maker may have died before that."""
        made = self.files.place_directory(path.parent)
        if made or path.parent.name not in self._durable:
            self.files.sync_directory(self.directory)
            self._durable.add(path.parent.name)

    def _right(self, object_id: str, path: Path, size: int) -> int:
        """The open file if it holds the right bytes, else -1. It is flushed like a new one: see `_directory_of`."""
        try:
            fd = self.files.open(path)
        except OSError:
            return -1
        try:
            if os.fstat(fd).st_size == size and _digest(fd)[0] == object_id:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def temporary(self, object_id: str) -> Path:
        """A free name for a file that is to become the object."""
        return self.directory.joinpath(object_id[:2], f"{object_id}.{secrets.token_hex(8)}.tmp")

    def read(self, object_id: str) -> bytes:
        """The bytes of the object; they match its id. Raises Corrupt that names the file."""
        path = self.path(object_id)
        with self.opened(object_id) as fd, open(fd, "rb", closefd=False) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != object_id:
            raise _corrupt(path, "its bytes do not match its hash")
        return data

    def check(self, object_id: str) -> tuple[int, Header]:
        """The size and header of the object after hashing it, in bounded memory. Raises Corrupt, Unsupported."""
        path = self.path(object_id)
        with self.opened(object_id) as fd:
            digest, size, start = _digest(fd)
        if digest != object_id:
            raise _corrupt(path, "its bytes do not match its hash")
        return size, header_of(start, path)

    def corrupt(self, object_id: str, what: str) -> Corrupt:
        return _corrupt(self.path(object_id), what)

    @contextlib.contextmanager
    def opened(self, object_id: str) -> Iterator[int]:
        """The file of the object, for reading. Raises Corrupt that names it."""
        path = self.path(object_id)
        try:
            if path.parent.is_symlink():
                raise OSError(errno.ELOOP, "its directory is a symbolic link, which a store does not follow")
            fd = self.files.open(path)
        except FileNotFoundError as error:
            raise _corrupt(path, "it is missing") from error
        except OSError as error:
            raise circumstance(error, path) or _corrupt(path, f"it cannot be opened ({error.strerror})") from error
        try:
            yield fd
        except OSError as error:
            raise circumstance(error, path) or _corrupt(path, f"it cannot be read ({error.strerror})") from error
        finally:
            os.close(fd)

    def quarantine(self, path: Path) -> Path:
        """Move a path out of the way; returns where it is now. Overwrites nothing."""
        place = self.directory.with_name("quarantine")
        with usable(place):
            self.files.make_directory(place)
            names = (f"{path.name}.{n}" if n else path.name for n in itertools.count())
            target = next(place / name for name in names if not os.path.lexists(place / name))
            self.files.rename(path, target)
            self.files.sync_directory(place)
            self.files.sync_directory(path.parent)
        return target

    def files_found(self) -> Iterator[tuple[Path, str]]:
        """Every file in the directory, with the object that it is or was to become; '' for a file that is not ours."""
        for prefix in sorted(self.directory.iterdir()):
            if prefix.is_symlink() or not prefix.is_dir():
                yield prefix, ""
                continue
            for path in sorted(prefix.iterdir()):
                found = _OBJECT_FILE.match(path.name)
                yield path, found[1] if found and found[1].startswith(prefix.name) else ""


def _digest(fd: int) -> tuple[str, int, bytes]:
    """SHA-256, size, and enough of the beginning to hold the header."""
    digest = hashlib.sha256()
    size = 0
    start = bytearray()
    wanted = _CHUNK
    while chunk := os.read(fd, _CHUNK):
        digest.update(chunk)
        size += len(chunk)
        if len(start) < wanted:
            start += chunk
            wanted = 8 + min(MAX_HEADER, int.from_bytes(start[:8], "little"))
    return digest.hexdigest(), size, bytes(start)


def _corrupt(path: Path, what: str) -> Corrupt:
    return Corrupt(
        f"{path} is damaged: {what}. Nothing else was changed. Restore it from a backup, or run `ssmprov ckpt verify "
        "--repair`: if its tokens are stored, they are then read again when the state is needed",
        file=str(path),
        what=what,
    )
