"""The reader of an old runner's pickle: it gives back what stands in a real one, and nothing else ever runs."""

from __future__ import annotations

import builtins
import os
import pickle
import pickletools
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssmprov.errors import BadRequest
from workers import kv_pickle
from workers.kv_pickle import KvPickle, parse, read

START = b"\x80\x04"


def dumped(blob: Any = b"state", tokens: Any = 7, protocol: int = pickle.HIGHEST_PROTOCOL, **more: Any) -> bytes:
    return pickle.dumps({"blob": blob, "n_tokens": tokens, **more}, protocol=protocol)


class Calls:
    """Pickles as a call, which unpickling would make."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def memo_bomb() -> bytes:
    bomb: list[Any] = ["x"]
    for _ in range(12):
        bomb = [bomb] * 10
    return pickle.dumps(bomb)


@given(
    st.binary(min_size=1, max_size=3000) | st.just(b"big" * 50_000),
    st.integers(0, kv_pickle.MAX_TOKENS),
    st.integers(3, pickle.HIGHEST_PROTOCOL),
)
def test_what_was_saved_comes_back(blob: bytes, tokens: int, protocol: int) -> None:
    assert parse(dumped(blob, tokens, protocol)) == KvPickle(blob, tokens)


def test_a_bytearray_counts_as_bytes() -> None:
    assert parse(dumped(bytearray(b"state"))) == KvPickle(b"state", 7)


@given(st.binary(max_size=200) | st.binary(max_size=200).map(START.__add__))
@example(b"")
@example(b"\x80")
@example(START + b"]\x94h\x00a.")
def test_random_bytes_are_refused_in_one_sentence(data: bytes) -> None:
    refused(data)


@given(st.data())
def test_a_mutated_file_gives_plain_values_or_a_refusal(data: st.DataObject) -> None:
    whole = bytearray(dumped(b"state" * 100, 4711, data.draw(st.integers(3, pickle.HIGHEST_PROTOCOL))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not whole:
            break
    try:
        found = parse(bytes(whole))
    except BadRequest:
        return
    assert type(found.blob) is bytes
    assert type(found.tokens) is int


@given(st.lists(st.sampled_from([opcode.code.encode("latin-1") for opcode in pickletools.opcodes]), max_size=40))
def test_no_sequence_of_opcodes_does_more_than_build_plain_values(codes: list[bytes]) -> None:
    refused(START + b"".join(codes) + b".")


ADMITTED = st.sampled_from(
    [b"}", b"(", b"s", b"u", b"\x94", b"q\x07", b"\x8c\x04blob", b"\x8c\x08n_tokens", b"C\x02ab", b"K\x05", b"."]
)


@given(st.lists(ADMITTED, max_size=30))
def test_no_sequence_of_admitted_opcodes_does_either(parts: list[bytes]) -> None:
    with suppress(BadRequest):
        assert parse(START + b"".join(parts)) == KvPickle(b"ab", 5)


@pytest.mark.parametrize(
    "hostile",
    [
        Calls(os.system, "exit 9"),
        Calls(builtins.eval, "1 + 1"),
        {"blob": Calls(os.getcwd), "n_tokens": 7},
        {"blob": b"state", "n_tokens": 7, "more": Calls(os.system, "exit 9")},
    ],
)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_is_refused_before_anything_is_built(
    hostile: object, protocol: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pickle.dumps(hostile, protocol=protocol)
    monkeypatch.delattr(kv_pickle, "_Unpickler")  # whoever builds anything would need it
    assert "GLOBAL at byte" in refused(data)


@pytest.mark.parametrize(
    ("opcodes", "named"),
    [
        (b"cos\nsystem\n", "GLOBAL"),
        (b"(S'ls'\nios\nsystem\n", "STRING"),
        (b"(ios\nsystem\n", "INST"),
        (b"(o", "OBJ"),
        (b"}}\x81", "NEWOBJ"),
        (b"}}\x92", "NEWOBJ_EX"),
        (b"}}b", "BUILD"),
        (b"}}R", "REDUCE"),
        (b"Pwho\n", "PERSID"),
        (b"}Q", "BINPERSID"),
        (b"\x82\x01", "EXT1"),
        (b"\x83\x01\x00", "EXT2"),
        (b"\x84\x01\x00\x00\x00", "EXT4"),
        (b"\x97", "NEXT_BUFFER"),
        (b"}\x98", "READONLY_BUFFER"),
        (b"}\x94h\x00", "BINGET"),
        (b"}r\xff\xff\xff\xff", "LONG_BINPUT"),
        (b"]", "EMPTY_LIST"),
        (b"L" + b"9" * 100_000 + b"L\n", "LONG"),
        (b"\x8b\xff\xff\xff\x7f", "LONG4"),
        (b"G" + bytes(8), "BINFLOAT"),
    ],
)
def test_what_such_a_file_never_needs_is_named(opcodes: bytes, named: str) -> None:
    assert f"it asks for {named} at byte " in refused(START + opcodes + b".")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cut short after 0 bytes"),
        (b"}.", "begins with EMPTY_DICT"),
        (b"\xff", "0xff, which is not an opcode"),
        (b"\x80\x63N.", "protocol 99"),
        (START + b"K\x01.", "holds one int"),
        (START + b"}.", "holds nothing"),
        (START + b"\x95" + b"\xff" * 8 + b"}.", "frame at byte 2 is longer than the file"),
        (START + b"\x8e" + b"\xff" * 8, "BINBYTES8 at byte 2 is cut short"),
        (START + b"\x8e" + (1 << 40).to_bytes(8, "little") + b"x", "BINBYTES8 at byte 2 is cut short"),
        (START + b"B\xff\xff\xff\xffx", "BINBYTES at byte 2 is cut short"),
        (START + b"\x96" + (1 << 62).to_bytes(8, "little"), "BYTEARRAY8 at byte 2 is cut short"),
        (START + b"\x8c\x01\xff.", "SHORT_BINUNICODE at byte 2 is cut short or ill-formed"),
        (START + b"}" * 100, "more than 64 opcodes"),
        (START + b"s.", "do not add up"),
        (START + b"}}K\x01s.", "do not add up"),
        (dumped() + b"x", "1 bytes follow its end"),
        (dumped()[:-3], "frame at byte 2 is longer than the file"),
        (dumped(protocol=3)[:-1], "cut short after"),
        (dumped(extra=1), "its dict holds 'blob', 'n_tokens', 'extra'"),
        (dumped(blob="text"), "its blob is of the type str"),
        (dumped(blob=b""), "its blob is empty"),
        (dumped(tokens=-1), "n_tokens is not a possible"),
        (dumped(tokens=1 << 31), "n_tokens is not a possible"),
        (dumped(tokens=1 << 2000), "n_tokens is not a possible"),
        (dumped(tokens=b"7"), "n_tokens is of the type bytes"),
        (dumped(tokens=True), "NEWTRUE"),
        (dumped(blob=[b"state"]), "EMPTY_LIST"),
        (dumped(blob={"deeper": b"state"}), "its blob is of the type dict"),
        (memo_bomb(), "EMPTY_LIST"),
    ],
)
def test_the_refusal_says_what_was_found(data: bytes, words: str) -> None:
    assert words in refused(data)


def test_a_large_file_costs_a_few_times_its_size() -> None:
    data = dumped(bytes(8 << 20))
    tracemalloc.start()
    try:
        parse(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


def test_a_file_is_known_by_its_first_byte(tmp_path: Path) -> None:
    saved, export, empty = (tmp_path / name for name in ("kv.pkl", "echo.ctx", "empty"))
    saved.write_bytes(dumped())
    export.write_bytes(b"SSMPROV\1")
    empty.touch()
    assert [kv_pickle.is_pickle(path) for path in (saved, export, empty, tmp_path)] == [True, False, False, False]
    assert read(saved) == KvPickle(b"state", 7)


def test_a_file_past_all_reason_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "kv.pkl"
    with path.open("wb") as file:
        file.write(START)
        file.truncate(kv_pickle.MAX_BYTES + 1)
    with pytest.raises(BadRequest, match="at most"):
        read(path)


def refused(data: bytes) -> str:
    with pytest.raises(BadRequest) as caught:
        parse(data)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400
    return caught.value.message


def test_a_frame_hides_no_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """An argument that reaches beyond its frame: the unpickler would read on elsewhere, in the midst of some bytes."""
    sought: list[str] = []
    monkeypatch.setattr(kv_pickle._Unpickler, "find_class", lambda _self, module, name: sought.append(module + name))
    hidden = b"\0\0\0\0" + b"0cos\nsystem\n."
    data = b"\x80\x04\x95" + struct.pack("<Q", 5) + b"\x8e" + struct.pack("<Q", len(hidden)) + hidden + b"."
    with pytest.raises(BadRequest, match="holds one bytes"):
        kv_pickle.parse(data)
    assert not sought
