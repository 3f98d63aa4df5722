"""A state that was made and not read is imported as the root of contexts, by the model that it is of and no other."""

from __future__ import annotations

import codecs
import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from cluster import TINY, Cluster, rwkv_toml, scripted_toml
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import rwkv7
from models.rwkv7 import ByteTokenizer
from ssmprov.errors import BadRequest, Conflict, Corrupt, SsmprovError, Unsupported, WrongModel
from ssmprov.statefile import Origin, is_state_file, read_state, write_state

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("states")
    cluster = Cluster(home, rwkv_toml(home) + scripted_toml(home)).up()
    yield cluster
    cluster.close()


def made(seed: int = 5) -> Arrays:
    random = np.random.default_rng(seed)
    heads, size = TINY.heads, TINY.head_size
    return {
        "shifts": random.normal(scale=9, size=(TINY.layers, 2, TINY.channels)).astype(np.float32),
        "wkv": random.normal(scale=30, size=(TINY.layers, heads, size, size)).astype(np.float32),
    }


def origin(house: Cluster) -> Origin:
    return Origin(rwkv7.fingerprint(house.home / "tiny.pth"), "rwkv7", TINY.layout)


def greedy(house: Cluster, arrays: Arrays, prompt: str, count: int) -> bytes:
    """What the model writes from a state, computed without any of the service."""
    weights, tokenizer = rwkv7.load(house.home / "tiny.pth"), ByteTokenizer()
    shifts, wkv = (torch.from_numpy(np.array(arrays[name])) for name in ("shifts", "wkv"))
    state = rwkv7.State(shifts.unsqueeze(2).clone(), wkv.unsqueeze(1).clone())
    logits, state = rwkv7.forward(weights, torch.tensor([tokenizer.encode(prompt)]), None, state)
    text = b""
    for _ in range(count):
        order = logits[0].argsort(descending=True).tolist()
        token = next(token for token in order if token and is_text(text + tokenizer.piece(token)))
        text += tokenizer.piece(token)
        logits, state = rwkv7.forward(weights, torch.tensor([[token]]), None, state)
    return text


def is_text(data: bytes) -> bool:
    """Whether bytes are UTF-8, perhaps with a character that is still open, and hold no NUL."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return b"\0" not in data


def test_a_made_state_is_where_its_contexts_begin(house: Cluster, tmp_path: Path) -> None:
    path, arrays = tmp_path / "tuned.safetensors", made()
    write_state(path, arrays, origin(house))
    with house.client() as client:
        row = client.import_(path, "tuned", model="tiny")
        assert (row.opaque, row.tokens, row.exact) == (True, 0, True)
        client.fork("tiny:tuned", ["one", "two"])
        values = {"temp": 0.0, "pen_rep": 1.0}
        for context in ("tuned", "one", "two"):
            reply = client.turn("ab", model="tiny", context=context, values=values, max_tokens=8)
            expected = greedy(house, arrays, "ab", 8)
            assert reply.text.encode().startswith(expected)
            assert len(expected) == 8
        other = client.turn("ab", model="tiny", values=values, max_tokens=8).text
        assert other != reply.text, "the state makes a difference"
        with pytest.raises(Conflict):
            client.import_(path, "tuned", model="tiny")
        with pytest.raises(Unsupported, match="without its tokens"):
            client.text("tiny:tuned")


def refused(house: Cluster, path: Path, kind: type[SsmprovError], why: str, model: str = "tiny") -> None:
    with house.client() as client:
        before = client.ls(model=model).rows
        with pytest.raises(kind, match=why):
            client.import_(path, "refused", model=model)
        assert client.ls(model=model).rows == before


def test_a_state_of_another_model_is_refused(house: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(path, made(), replace_origin(origin(house), fingerprint="ab" * 32))
    refused(house, path, WrongModel, "to another model: rwkv7 abababababab")
    write_state(path, made(), replace_origin(origin(house), layout="rwkv7 L9"))
    refused(house, path, WrongModel, "'rwkv7 L9'")
    write_state(path, made(), origin(house))
    refused(house, path, WrongModel, "the model here is", model="talk")


def replace_origin(found: Origin, **changes: str) -> Origin:
    return msgspec.structs.replace(found, **changes)


def test_arrays_that_are_no_state_of_it_are_refused(house: Cluster, tmp_path: Path) -> None:
    path, good = tmp_path / "s", made()
    for bad in (
        {"shifts": good["shifts"]},
        good | {"more": good["shifts"]},
        good | {"wkv": good["wkv"][:1]},
        good | {"wkv": good["wkv"].astype(np.float64)},
    ):
        write_state(path, bad, origin(house))
        refused(house, path, Corrupt, "this model's state is")
    write_state(path, good | {"wkv": np.full_like(good["wkv"], np.nan)}, origin(house))
    refused(house, path, Corrupt, "wkv contains NaN")


def test_a_file_that_is_cut_short_is_refused(house: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(path, made(), origin(house))
    data = path.read_bytes()
    path.write_bytes(data[:-5])
    refused(house, path, Corrupt, "damaged")


@given(st.binary(max_size=64))
def test_any_bytes_are_no_state_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any-state"
    for content in (data, struct.pack("<Q", len(data)) + data):
        path.write_bytes(content)
        assert not is_state_file(path)
        with pytest.raises(BadRequest):
            read_state(path)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_flipped_byte_is_read_as_another_state_or_told(
    tmp_path_factory: pytest.TempPathFactory, at: int, mask: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped-state"
    numbers = np.arange(40, dtype=np.float32)
    write_state(path, {"a": numbers}, Origin("ab" * 32, "rwkv7", "x", 3), {"b": numbers.astype(np.float16)})
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= mask
    path.write_bytes(data)
    with contextlib.suppress(BadRequest, Corrupt):
        read_state(path)
