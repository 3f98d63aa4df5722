"""State files that bring weights along, and the number by which a state names them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from ssmprov.errors import BadRequest, Corrupt
from ssmprov.statefile import Origin, is_state_file, read_state, weights_id, write_state

ORIGIN = Origin("ab" * 32, "rwkv7", "rwkv7 L1", 3)
ARRAYS = {"wkv": np.arange(6, dtype=np.float32).reshape(2, 3)}


def some_weights() -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.floating]]]:
    return {
        "head.weight": np.arange(8, dtype=np.float32).reshape(4, 2).T,  # not contiguous
        "emb.weight": np.ones((2, 2), np.float16),
        "gate": np.array(0.25, np.float32),
    }


def test_a_state_and_its_weights_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_state(path, ARRAYS, ORIGIN, some_weights())
    assert is_state_file(path)
    state = read_state(path)
    assert state.origin == ORIGIN
    assert state.arrays.keys() == ARRAYS.keys()
    assert np.array_equal(state.arrays["wkv"], ARRAYS["wkv"])
    assert state.weights.keys() == some_weights().keys()
    for name, tensor in some_weights().items():
        found = state.weights[name]
        assert (found.shape, found.dtype) == (tensor.shape, tensor.dtype)
        assert np.array_equal(found, tensor)


def test_a_file_without_weights_is_what_it_always_was(tmp_path: Path) -> None:
    plain, empty = tmp_path / "plain", tmp_path / "empty"
    write_state(plain, ARRAYS, ORIGIN)
    write_state(empty, ARRAYS, ORIGIN, {})
    assert load(plain.read_bytes()).keys() == load(empty.read_bytes()).keys() == ARRAYS.keys()
    assert read_state(plain).weights == {}


def test_weights_may_come_alone(tmp_path: Path) -> None:
    write_state(tmp_path / "s", {}, ORIGIN, some_weights())
    state = read_state(tmp_path / "s")
    assert state.arrays == {}
    assert len(state.weights) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = some_weights() | {"head.weight": np.array([1, value], np.float32)}
    write_state(tmp_path / "s", ARRAYS, ORIGIN, weights)
    with pytest.raises(Corrupt, match=r"weights\.head\.weight contains"):
        read_state(tmp_path / "s")


def test_a_state_may_hold_minus_infinity_all_the_same(tmp_path: Path) -> None:
    write_state(tmp_path / "s", {"m": np.array([-np.inf], np.float32)}, ORIGIN, some_weights())
    assert read_state(tmp_path / "s").arrays["m"] == -np.inf


@pytest.mark.parametrize("name", ["weights", "weights.head.weight"])
def test_names_of_weights_are_not_for_arrays_of_a_state(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest, match="that name is reserved for weights"):
        write_state(tmp_path / "s", {name: np.zeros(32, np.uint8)}, ORIGIN)
    assert not (tmp_path / "s").exists()


def test_a_file_that_names_weights_itself_is_refused(tmp_path: Path) -> None:
    write_state(tmp_path / "s", ARRAYS, ORIGIN)
    metadata = {"format": "ssmprov.state.v1", "fingerprint": "a", "architecture": "b", "layout": "c", "tokens": "0"}
    (tmp_path / "s").write_bytes(save({"weights": np.zeros(32, np.uint8)}, metadata))
    with pytest.raises(Corrupt, match="cannot have an array called weights"):
        read_state(tmp_path / "s")


def test_the_number_is_of_the_weights_and_not_of_how_they_came() -> None:
    data, number = weights_id(some_weights())
    assert number == hashlib.sha256(data).digest()
    assert load(data)["gate"].shape == ()
    backwards = dict(reversed(some_weights().items()))
    backwards["head.weight"] = np.asarray(backwards["head.weight"], order="C")
    assert weights_id(backwards) == (data, number)
    assert weights_id(some_weights() | {"gate": np.array(0.5, np.float32)})[1] != number
