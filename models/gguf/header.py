"""Reads the header of one GGUF file, and checks every length against the size of the file.

Layout, little-endian (ggml's `docs/gguf.md`): the magic, a u32 version, u64 counts of tensors and of key-value pairs;
then the pairs (a key, a u32 type, a value); then for each tensor its name, u32 number of axes, u64 axes (fastest
first), u32 type and u64 offset. The data follow at the next aligned byte, and offsets count from there. A string is a
u64 length and its bytes.

The reader of the `gguf` package suits only files that you trust: a wrong length can send it into an endless loop or
raise any of a dozen exceptions. Only its tables of types are used here.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 20
MAX_ELEMENTS = 1 << 24
MAX_STRING_BYTES = 1 << 28
"""Far more than any model has. It limits the work that a damaged length can cause."""

SCALARS = "BbHhIif?"  # struct codes of the types 0 to 7
STRING, ARRAY = 8, 9
WIDE_SCALARS = {10: "Q", 11: "q", 12: "d"}
FORMATS = {**dict(enumerate(SCALARS)), **WIDE_SCALARS}


class GgufError(ValueError):
    """A GGUF file that cannot be used. The message names the file."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the header, and where its type and bytes are in the file."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """A tensor in the file: `shape` has the fastest axis first, `start` counts bytes from the beginning of the file."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    start: int
    nbytes: int

    @property
    def numbers(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    path: Path
    file_bytes: int
    values: dict[str, Value]
    tensors: tuple[TensorInfo, ...]

    def get(self, key: str, kind: type[Any], default: Any) -> Any:
        """The value of a key, or the default if the key is missing. Raises GgufError if it has another type."""
        if key not in self.values:
            return default
        value = self.values[key].value
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise GgufError(f"{self.path}: {key} should be a {kind.__name__}, found {str(value)[:60]!r}")
        return value


def read_header(path: Path) -> Header:
    """The header of a file. Raises GgufError if the file is missing, not GGUF, cut short or inconsistent."""
    try:
        if path.exists() and not path.is_file():
            raise GgufError(f"{path}: this is not a file")
        with path.open("rb") as file:
            return _parse(path, _Cursor(path, file))
    except FileNotFoundError:
        raise GgufError(f"{path}: there is no such file") from None
    except OSError as error:
        raise GgufError(f"{path}: the file cannot be read ({error.strerror or error})") from error


class _Cursor:
    """A position in a file that never moves past the end."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.size = file.seek(0, 2)
        self.at = file.seek(0)

    def take(self, count: int) -> bytes:
        if count > self.size - self.at:
            raise GgufError(f"{self.path}: the file is cut short: it ends inside its header; download it again")
        found = self._file.read(count)
        if len(found) != count:
            raise GgufError(f"{self.path}: the file got shorter while it was being read")
        self.at += count
        return found

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> bytes:
        length = self.number("Q")
        if length > MAX_STRING_BYTES:
            raise self.wrong(f"a string of {length} bytes")
        return self.take(length)

    def name(self) -> str:
        try:
            return self.string().decode()
        except UnicodeDecodeError:
            raise self.wrong("a name that is not UTF-8") from None

    def wrong(self, what: str) -> GgufError:
        return GgufError(f"{self.path}: the header is damaged: {what} near byte {self.at}")


def _parse(path: Path, cursor: _Cursor) -> Header:
    if cursor.size < len(MAGIC) or cursor.take(len(MAGIC)) != MAGIC:
        raise GgufError(f"{path}: this is not a GGUF file")
    version = cursor.number("I")
    if version not in VERSIONS:
        kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
        raise GgufError(f"{path}: this GGUF file is {kind}, but only little-endian files of version 2 or 3 can be read")
    tensor_count, key_count = cursor.number("Q"), cursor.number("Q")
    if key_count > MAX_KEYS or tensor_count > MAX_TENSORS:
        raise cursor.wrong(f"{key_count} keys and {tensor_count} tensors")
    values: dict[str, Value] = {}
    for _ in range(key_count):
        key = cursor.name()
        if key in values:
            raise cursor.wrong(f"the key {key} twice")
        start = cursor.at
        value = _value(cursor, cursor.number("I"))
        values[key] = Value(value, start, cursor.at)
    places = [_tensor(cursor) for _ in range(tensor_count)]
    alignment = values["general.alignment"].value if "general.alignment" in values else 32
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        raise cursor.wrong(f"an alignment of {str(alignment)[:60]}")
    data = -(-cursor.at // alignment) * alignment
    tensors = tuple(_placed(cursor, data, *place) for place in places)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise cursor.wrong("a tensor twice")
    return Header(path, cursor.size, values, tensors)


def _value(cursor: _Cursor, kind: int) -> Any:
    if kind == STRING:
        return cursor.string().decode(errors="replace")
    if kind in FORMATS:
        return _scalars(cursor, kind, 1)[0]
    if kind != ARRAY:
        raise cursor.wrong(f"a value of the unknown type {kind}")
    of, count = cursor.number("I"), cursor.number("Q")
    if count > MAX_ELEMENTS:
        raise cursor.wrong(f"an array of {count} elements")
    if of == STRING:
        return [cursor.string().decode(errors="replace") for _ in range(count)]
    if of not in FORMATS:
        raise cursor.wrong(f"an array of the type {of}")
    return list(_scalars(cursor, of, count))


def _scalars(cursor: _Cursor, kind: int, count: int) -> tuple[Any, ...]:
    layout = f"<{count}{FORMATS[kind]}"
    return struct.unpack(layout, cursor.take(struct.calcsize(layout)))


def _tensor(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """The name, axes, type number and offset of the next tensor."""
    name, axes = cursor.name(), cursor.number("I")
    if not 1 <= axes <= 4:
        raise cursor.wrong(f"a tensor of {axes} axes")
    shape = tuple(cursor.number("Q") for _ in range(axes))
    return name, shape, cursor.number("I"), cursor.number("Q")


def _placed(cursor: _Cursor, data: int, name: str, shape: tuple[int, ...], number: int, offset: int) -> TensorInfo:
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        raise GgufError(f"{cursor.path}: the tensor {name} has the unknown type {number}") from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    if shape[0] % block:
        raise GgufError(
            f"{cursor.path}: the tensor {name} has rows of {shape[0]} numbers, but {kind.name} needs blocks of {block}"
        )
    nbytes = math.prod(shape) // block * block_bytes
    if data + offset + nbytes > cursor.size:
        raise GgufError(
            f"{cursor.path}: the file is cut short: the tensor {name} ends at byte {data + offset + nbytes}, "
            f"but the file ends at byte {cursor.size}; download it again"
        )
    return TensorInfo(name=name, shape=shape, kind=kind, start=data + offset, nbytes=nbytes)
