"""The bytes of one sequence's state as llama.cpp writes them: parsed, checked, and brought into one form.

llama.cpp trusts these bytes: wrong ones may abort the process, or be loaded silently. So every field is compared with a
reference that this very model wrote, before a byte reaches the library. A state is a header and sections, all integers
little endian:

    header      u32 magic, i32 sequence
    attention   u32 streams; then for each stream u32 cells, and unless that is 0:
                cells x (i32 position, u32 1, i32 sequence); u32 v_trans, u32 layers;
                a key record for each layer, then a value record for each layer (or for none)
    recurrent   u32 cells (1, or 0 if nothing was read); i32 position, u32 0; u32 0, u32 layers;
                a shift record for each layer that has one, then a state record for each

A record is i32 type, u64 row bytes, and cells rows; a transposed value record is i32 type, u32 element bytes, u32
channels, and channels x cells elements. Models have one attention section, two (full and sliding window), a recurrent
one, or attention and recurrent.

In our form the sequence is 0 everywhere and there is one stream, so equal contexts have equal bytes, whatever slot they
were in and however many slots there were.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssmprov.errors import Corrupt, Unsupported

MAGIC = 0xAF143CD8
HEADER = struct.Struct("<Ii")
MAX_POSITION = 2**31 - 1
_INFINITY = {0: ("<u4", 0x7F80_0000), 1: ("<u2", 0x7C00)}
"""For the library's types that hold plain numbers, f32 and f16: the bits of infinity; those of NaN are larger, sign
excluded. A value that is not finite would outlive its context: the library empties a state by multiplying it by zero,
and also multiplies what it masks by zero.
"""

_CELL = np.dtype([("position", "<i4"), ("count", "<u4"), ("sequence", "<i4")])


@dataclass(frozen=True, slots=True)
class Record:
    """The rows of one kind in one layer: `row` bytes a cell. Transposed ones have `element` bytes and `channels`."""

    type: int
    row: int
    element: int = 0
    channels: int = 0

    @property
    def transposed(self) -> bool:
        return self.element > 0

    def head(self) -> bytes:
        if self.transposed:
            return struct.pack("<iII", self.type, self.element, self.channels)
        return struct.pack("<iQ", self.type, self.row)


@dataclass(frozen=True, slots=True)
class Attention:
    """A cache of keys and values, which grows with the tokens read. `window` marks that of a sliding window."""

    v_trans: int
    keys: tuple[Record, ...]
    values: tuple[Record, ...]
    window: bool = False

    @property
    def bytes_per_token(self) -> int:
        return sum(record.row for record in (*self.keys, *self.values))

    def __str__(self) -> str:
        kind = "window" if self.window else "attention"
        return f"{kind} L{len(self.keys)} {self.bytes_per_token} B a token{' transposed' if self.v_trans else ''}"


@dataclass(frozen=True, slots=True)
class Recurrent:
    """States of one size, whatever was read. `layers` counts all layers of the model, even those without a state."""

    layers: int
    records: tuple[Record, ...]

    @property
    def bytes(self) -> int:
        return sum(record.row for record in self.records)

    def __str__(self) -> str:
        return f"recurrent L{self.layers} {self.bytes} B"


Section = Attention | Recurrent


class _Reader:
    """A cursor over bytes; raises Corrupt at their end."""

    def __init__(self, data: memoryview, at: int = 0) -> None:
        self.data = data
        self.at = at

    def take(self, count: int) -> memoryview:
        if count < 0 or count > len(self.data) - self.at:
            raise Corrupt("the state is cut short")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))


@dataclass(frozen=True, slots=True)
class Layout:
    """The sections of a model's states."""

    sections: tuple[Section, ...]

    @classmethod
    def of(cls, blob: bytes, cells: int) -> Layout:
        """The layout of a state that a model wrote after it had read `cells` tokens, at least two.

        Raises Unsupported if no known order of sections explains every byte.
        """
        data = memoryview(blob)
        for names in ("r", "k", "kk", "kr", "kkr"):
            try:
                return cls(_learn(data, names, cells))
            except Corrupt:
                continue
        raise Unsupported("this model keeps its contexts in a form that ssmprov does not know, so it cannot be served")

    def __str__(self) -> str:
        return ", ".join(map(str, self.sections))

    @property
    def grows(self) -> bool:
        """Whether a context takes more memory the more it has read."""
        return any(isinstance(section, Attention) for section in self.sections)

    @property
    def fixed_bytes(self) -> int:
        return sum(section.bytes for section in self.sections if isinstance(section, Recurrent))

    @property
    def bytes_per_token(self) -> int:
        return sum(section.bytes_per_token for section in self.sections if isinstance(section, Attention))

    def check(self, blob: bytes | memoryview, position: int) -> None:
        """Raise Corrupt unless a state in our form belongs to this model after `position` tokens, at least one."""
        if not 0 < position <= MAX_POSITION:
            raise Corrupt(f"the state's position is {position}, which is impossible")
        data = memoryview(blob)
        reader = _Reader(data)
        if reader.numbers("<Ii") != (MAGIC, 0):
            raise Corrupt("the state does not begin like a state of llama.cpp")
        for section in self.sections:
            if isinstance(section, Recurrent):
                _check_recurrent(reader, section, position)
            else:
                _expect(reader, "<I", (1,), "streams")
                (cells,) = reader.numbers("<I")
                _check_attention(reader, section, position, cells)
        if reader.at != len(data):
            raise Corrupt(f"the state is {len(data)} bytes long, but this model's is {reader.at}")

    def outward(self, blob: bytes | memoryview, streams: int) -> bytes | memoryview:
        """A checked state in the form that a context with this many streams loads."""
        if streams == 1 or not self.grows:
            return blob
        data = memoryview(blob)
        reader = _Reader(data, HEADER.size)
        parts: list[bytes | memoryview] = [data[: HEADER.size]]
        for section in self.sections:
            if isinstance(section, Recurrent):
                parts.append(_take_recurrent(reader, section))
                continue
            begin = reader.at
            _, cells = reader.numbers("<II")
            _skip_cells(reader, section, cells)
            parts += [struct.pack("<I", streams), data[begin + 4 : reader.at], bytes(4 * (streams - 1))]
        return b"".join(parts)

    def inward(self, blob: bytearray) -> memoryview:
        """A state that a context wrote, in our form. Raises Corrupt if the library wrote something unexpected."""
        struct.pack_into("<i", blob, 4, 0)
        data = memoryview(blob)
        if not self.grows:
            return data
        reader = _Reader(data, HEADER.size)
        parts: list[bytes | memoryview] = [bytes(data[: HEADER.size])]
        for section in self.sections:
            if isinstance(section, Recurrent):
                parts.append(_take_recurrent(reader, section))
                continue
            begin, end = _one_stream(reader, section)
            parts += [struct.pack("<I", 1), data[begin:end]]
        if len(self.sections) > 1:
            return memoryview(b"".join(parts))
        head = b"".join(parts[:-1])  # with one section only this moves, to where its cells begin
        data[begin - len(head) : begin] = head
        return data[begin - len(head) : end]

    def adopt(self, blob: bytes, architecture: str) -> tuple[bytes, int, bytes]:
        """Our form of a whole context's state with one sequence, as other programs save it; its position; its logits.

        Only for recurrent models. It begins with a string, the architecture; older versions of the library continue
        with output ids and logits (b'' if there were none). Raises Corrupt and Unsupported.
        """
        section = self.sections[0]
        if len(self.sections) != 1 or not isinstance(section, Recurrent):
            raise Unsupported("only the states of recurrent models can be imported from another program")
        reader = _Reader(memoryview(blob))
        (length,) = reader.numbers("<I")
        name = bytes(reader.take(min(length, 256)))
        if name != architecture.encode():
            raise Corrupt(f"its model is a {name[:40].decode(errors='replace')!r}, but this one is a {architecture!r}")
        start = reader.at
        for skip_outputs in (False, True):
            reader.at = start
            try:
                logits = _outputs(reader) if skip_outputs else b""
                state, position = _adopt_recurrent(reader, section)
            except Corrupt as error:
                failure = error
                continue
            return HEADER.pack(MAGIC, 0) + state, position, logits
        raise Corrupt(f"it does not hold a state of this model: {failure.message}")


def _learn(data: memoryview, names: str, cells: int) -> tuple[Section, ...]:
    reader = _Reader(data)
    if reader.numbers("<Ii")[0] != MAGIC:
        raise Corrupt("no magic")
    sections: list[Section] = []
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if name == "r":
            sections.append(_learn_recurrent(reader))
        else:
            sections.append(_learn_attention(reader, cells, last=last, window=names[:index].count("k") > 0))
    if reader.at != len(data):
        raise Corrupt("bytes are left over")
    return tuple(sections)


def _learn_recurrent(reader: _Reader) -> Recurrent:
    """The section up to the end of the bytes. Layers without a state have no records, so their count is tried out."""
    _expect(reader, "<I", (1,), "cells")
    reader.numbers("<iI")
    trans, layers = reader.numbers("<II")
    if trans or not 0 < layers <= 4096:
        raise Corrupt("no recurrent state")
    start = reader.at
    for count in range(layers, 0, -1):
        reader.at = start
        try:
            records = tuple(_learn_record(reader, 1) for _ in range(2 * count))
        except Corrupt:
            continue
        if reader.at == len(reader.data) and len({*records[:count]}) == 1 == len({*records[count:]}):
            return Recurrent(layers, records)
    raise Corrupt("no recurrent state")


def _learn_attention(reader: _Reader, cells: int, *, last: bool, window: bool) -> Attention:
    (streams,) = reader.numbers("<I")
    if not 0 < streams <= 256:
        raise Corrupt("no attention cache")
    found: Attention | None = None
    for _ in range(streams):
        (count,) = reader.numbers("<I")
        if count == 0:
            continue
        if count != cells or found:
            raise Corrupt("no attention cache")
        reader.take(count * _CELL.itemsize)
        v_trans, layers = reader.numbers("<II")
        if v_trans > 1 or not 0 < layers <= 4096:
            raise Corrupt("no attention cache")
        keys = tuple(_learn_record(reader, count) for _ in range(layers))
        start = reader.at
        try:
            values = tuple(_learn_record(reader, count, transposed=bool(v_trans)) for _ in range(layers))
        except Corrupt:
            if not last:
                raise
            reader.at, values = start, ()  # keys and values in one, as with latent attention
        found = Attention(v_trans, keys, values, window)
    if found is None:
        raise Corrupt("no attention cache")
    return found


def _learn_record(reader: _Reader, cells: int, *, transposed: bool = False) -> Record:
    if transposed:
        kind, element, channels = reader.numbers("<iII")
        record = Record(kind, element * channels, element, channels)
    else:
        kind, row = reader.numbers("<iQ")
        record = Record(kind, row)
    if not 0 <= kind < 256 or record.row <= 0:
        raise Corrupt("no record")
    reader.take(record.row * cells)
    return record


def _expect(reader: _Reader, form: str, wanted: tuple[int, ...], what: str) -> None:
    found = reader.numbers(form)
    if found != wanted:
        raise Corrupt(f"the state's {what} should be {wanted[0]}, but are {found[0]}")


def _check_records(reader: _Reader, records: Sequence[Record], cells: int) -> None:
    for record in records:
        head = record.head()
        if bytes(reader.take(len(head))) != head:
            raise Corrupt("the state has layers of another type or size than this model's")
        rows = reader.take(record.row * cells)
        if record.type in _INFINITY:
            kind, infinity = _INFINITY[record.type]
            bits = np.frombuffer(rows, kind)
            if (bits << 1).max() >= infinity << 1:  # without the sign
                raise Corrupt("the state holds numbers that are not finite")


def _check_recurrent(reader: _Reader, section: Recurrent, position: int) -> None:
    _expect(reader, "<I", (1,), "cells")
    _expect(reader, "<iI", (position - 1, 0), "last position")
    _expect(reader, "<II", (0, section.layers), "layout")
    _check_records(reader, section.records, 1)


def _check_attention(reader: _Reader, section: Attention, position: int, cells: int) -> None:
    if cells > position or cells == 0 or (cells < position and not section.window):
        raise Corrupt(f"the state holds {cells} tokens, but {position} were read")
    found = np.frombuffer(reader.take(cells * _CELL.itemsize), _CELL)
    if (found["count"] != 1).any() or found["sequence"].any():
        raise Corrupt("the state's cells belong to another sequence")
    if (found["position"] != np.arange(position - cells, position)).any():
        raise Corrupt("the state's positions have a gap")
    _expect(reader, "<II", (section.v_trans, len(section.keys)), "layout")
    _check_records(reader, (*section.keys, *section.values), cells)


def _take_recurrent(reader: _Reader, section: Recurrent) -> memoryview:
    return reader.take(20 + sum(12 + record.row for record in section.records))


def _skip_cells(reader: _Reader, section: Attention, cells: int) -> None:
    records = (*section.keys, *section.values)
    reader.take(cells * _CELL.itemsize + 8 + sum(12 + record.row * cells for record in records))


def _one_stream(reader: _Reader, section: Attention) -> tuple[int, int]:
    """The bytes of the one stream that holds cells, now with sequence 0; of the first stream if none does."""
    (streams,) = reader.numbers("<I")
    kept = reader.at, reader.at + 4
    for _ in range(streams):
        begin = reader.at
        (cells,) = reader.numbers("<I")
        if cells:
            np.frombuffer(reader.data[reader.at :], _CELL, cells)["sequence"] = 0
            _skip_cells(reader, section, cells)
            kept = begin, reader.at
    return kept


def _outputs(reader: _Reader) -> bytes:
    """Skip the output ids and embeddings of an older whole-context state; return its last row of logits."""
    (outputs,) = reader.numbers("<I")
    reader.take(4 * outputs)
    (count,) = reader.numbers("<Q")
    logits = bytes(reader.take(4 * count))
    (count,) = reader.numbers("<Q")
    reader.take(4 * count)
    return logits


def _adopt_recurrent(reader: _Reader, section: Recurrent) -> tuple[bytes, int]:
    _expect(reader, "<I", (1,), "cells")
    position, owners = reader.numbers("<iI")
    if not 0 <= position < MAX_POSITION or owners != 1:
        raise Corrupt("it is not the state of one context")
    reader.take(4 * owners)
    begin = reader.at
    _expect(reader, "<II", (0, section.layers), "layout")
    _check_records(reader, section.records, 1)
    if reader.at != len(reader.data):
        raise Corrupt("bytes are left over")
    return struct.pack("<IiI", 1, position, 0) + bytes(reader.data[begin : reader.at]), position + 1
