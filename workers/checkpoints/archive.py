"""One file that holds a context with its lineage, to be carried to another host.

    8 bytes    b"SSMPROV" and the number of the format
    u32        length of the header, then the header (MessagePack, `ArchiveHeader`)
    for each step, root first:
      u32      length of the record, then the record (MessagePack, `ArchiveStep`)
    the bytes of the objects, in the order and sizes of the header: that of the head, then that of an opaque root
    32 bytes   SHA-256 of everything before

Numbers are little-endian. The object of the head carries the digest of its lineage, so its id vouches for every step. A
size in the file is checked against the size of the file before it is used.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from ssmprov.causes import explaining, shown
from ssmprov.errors import BadRequest, Corrupt, Unsupported
from workers.checkpoints.files import Files
from workers.checkpoints.lineage import ROOT_DIGEST, StepRecord
from workers.checkpoints.objects import Header, header_of

FORMAT = 1
MAGIC = b"SSMPROV"
MAX_HEADER = 64 << 10
MAX_RECORD = 64 << 20
MAX_OBJECT = 2 << 30
_CHUNK = 1 << 20
T = TypeVar("T")

BEGIN = 200
"""Bytes of a file's name that its temporary file repeats: file systems allow 255."""

_U32 = struct.Struct("<I")

ObjectId = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class ArchiveObject(msgspec.Struct, frozen=True):
    id: ObjectId
    bytes: Annotated[int, Meta(ge=1, le=MAX_OBJECT)]


class ArchiveHeader(msgspec.Struct, frozen=True):
    """`model` is the model's name on the exporting host; what counts are the fingerprints in the objects."""

    model: Annotated[str, Meta(max_length=64)]
    steps: Annotated[int, Meta(ge=1, le=1 << 24)]
    objects: Annotated[list[ArchiveObject], Meta(min_length=1, max_length=2)]


class ArchiveStep(msgspec.Struct, frozen=True):
    object: ObjectId
    record: StepRecord
    created: float


def write_archive(
    files: Files,
    path: Path,
    header: ArchiveHeader,
    steps: Iterable[ArchiveStep],
    objects: Iterable[bytes],
) -> tuple[str, int]:
    """Write the file, which appears complete or not at all; return its SHA-256 and size."""
    inner, outer = hashlib.sha256(), hashlib.sha256()
    size = 0
    begin = os.fsdecode(os.fsencode(path.name)[:BEGIN])
    temporary = path.with_name(f".{begin}.{secrets.token_hex(4)}.tmp")
    with files.replacing(path, temporary) as write:

        def put(data: bytes) -> None:
            nonlocal size
            inner.update(data)
            outer.update(data)
            write(data)
            size += len(data)

        put(MAGIC + bytes([FORMAT]))
        for block in (header, *steps):
            data = msgspec.msgpack.encode(block)
            put(_U32.pack(len(data)))
            put(data)
        for data in objects:
            put(data)
        put(inner.digest())
    return outer.hexdigest(), size


class Archive:
    """An archive that is open for reading. Trust nothing in it until `check` has returned."""

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        with explaining(f"{shown(path)} cannot be read", path):
            fd = files.open(path)
        self._file = open(fd, "rb", buffering=_CHUNK)  # noqa: SIM115 (closed by `close`)
        self.size = os.fstat(fd).st_size
        self.header: ArchiveHeader

    def close(self) -> None:
        self._file.close()

    def check(self) -> list[Header]:
        """Read it all, and return the headers of its states. Raises Corrupt if it is damaged or contradicts itself,
        Unsupported.
        """
        self._check_sum()
        self._file.seek(0)
        magic = self._read(8)
        if magic[:7] != MAGIC:
            raise self._corrupt("it is not an exported context")
        if magic[7] != FORMAT:
            raise Unsupported(f"{self.path} has the format {magic[7]}; this version reads {FORMAT}: update ssmprov")
        self.header = self._block(ArchiveHeader, MAX_HEADER)
        steps = self.steps()
        first = next(steps)
        last = deque(steps, maxlen=1).pop() if self.header.steps > 1 else first
        expected = [last[0].object]
        if first[0].record.opaque and first is not last:
            expected.append(first[0].object)
        if [item.id for item in self.header.objects] != expected:
            raise self._corrupt("its states are not those of its head and its root")
        if self._file.tell() + sum(item.bytes for item in self.header.objects) + 32 != self.size:
            raise self._corrupt("its parts do not add up to its size")
        return [
            self._object_header(index, step.record, digest)
            for index, (step, digest) in enumerate((last, first)[: len(expected)])
        ]

    def steps(self) -> Iterator[tuple[ArchiveStep, bytes]]:
        """The steps, root first, each with the digest of its lineage. Raises Corrupt if a step does not follow from the
        last.
        """
        self._file.seek(8)
        self._block(ArchiveHeader, MAX_HEADER)
        parent, digest, total = "", ROOT_DIGEST, 0
        for _ in range(self.header.steps):
            step = self._block(ArchiveStep, MAX_RECORD)
            if step.record.parent != parent or not math.isfinite(step.created) or abs(step.created) > 1e12:
                raise self._corrupt(f"step #{step.object[:12]} does not follow from the one before it")
            try:
                step.record.check(total)
                digest = step.record.digest(digest)
            except BadRequest as error:
                raise self._corrupt(error.message) from error
            parent, total = step.object, step.record.total
            yield step, digest

    def object(self, index: int) -> bytes:
        """The bytes of an object; they match its id."""
        after = sum(item.bytes for item in self.header.objects[index:]) + 32
        item = self.header.objects[index]
        self._file.seek(self.size - after)
        data = self._read(item.bytes)
        if hashlib.sha256(data).hexdigest() != item.id:
            raise self._corrupt(f"the state #{item.id[:12]} does not match its hash")
        return data

    def _object_header(self, index: int, record: StepRecord, digest: bytes) -> Header:
        header = header_of(self.object(index), self.path)
        claims = (header.parent, header.lineage, header.tokens, header.seed, header.exact, header.dtype)
        if claims != (record.parent, digest.hex(), record.total, record.seed, record.exact, record.dtype):
            raise self._corrupt("its state and its steps disagree")
        return header

    def _check_sum(self) -> None:
        digest = hashlib.sha256()
        left = self.size - 32
        self._file.seek(0)
        while left > 0:
            chunk = self._read(min(left, _CHUNK))
            digest.update(chunk)
            left -= len(chunk)
        if left or digest.digest() != self._read(32):
            raise self._corrupt("its checksum does not match")

    def _block(self, kind: type[T], limit: int) -> T:
        (size,) = _U32.unpack(self._read(4))
        if size > min(limit, self.size - self._file.tell()):
            raise self._corrupt("one of its parts is too long")
        try:
            return msgspec.msgpack.decode(self._read(size), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise self._corrupt("one of its parts cannot be read") from error

    def _read(self, count: int) -> bytes:
        data = self._file.read(min(count, self.size))
        if len(data) != count:
            raise self._corrupt("it is cut short")
        return data

    def _corrupt(self, what: str) -> Corrupt:
        return Corrupt(f"{self.path} is damaged: {what}; export it again. Nothing was imported", file=str(self.path))
