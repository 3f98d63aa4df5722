"""Objects: the same bytes for the same context, and nothing but those bytes is ever believed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoint_toy import IDENTITY, check_text, open_store, say
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssmprov.errors import BadRequest, Corrupt, WrongModel
from ssmprov.names import Ref
from workers.checkpoints import Store, objects
from workers.checkpoints.files import Files
from workers.checkpoints.lineage import record_of
from workers.context import Identity, Read, Snapshot

DTYPES = st.sampled_from([np.dtype(code) for code in ("?", "i1", "u1", "i2", "i4", "i8", "f2", "f4", "f8")])
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def encode(snapshot: Snapshot) -> bytes:
    record = record_of(snapshot, Read(np.zeros(0, np.int32), b""), IDENTITY.dtype)
    return objects.encode(snapshot, record, IDENTITY, bytes(32))


def only_file(store: Store) -> Path:
    (path,) = (store.directory / "objects").glob("*/*")
    return path


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    arrays=st.dictionaries(st.text(max_size=8), ARRAYS, max_size=4),
    logits=st.none() | hnp.arrays(np.float32, st.integers(0, 9)),
    window=hnp.arrays(np.int32, st.integers(0, 64)),
    seed=st.none() | st.integers(0, 2**63 - 1),
    exact=st.booleans(),
)
def test_a_context_comes_back_bit_for_bit(
    arrays: dict[str, np.ndarray], logits: np.ndarray | None, window: np.ndarray, seed: int | None, exact: bool
) -> None:
    before = Snapshot(arrays=arrays, logits=logits, window=window, tokens=17, seed=seed, parent="", exact=exact)
    data = encode(before)
    after = objects.decode(data, "0" * 64, Path("x"), IDENTITY)
    assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in after.arrays.items()} == {
        name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()
    }
    assert (after.logits is None) == (logits is None)
    assert logits is None or after.logits.tobytes() == logits.tobytes()
    assert after.window.tobytes() == window.tobytes()
    assert (after.tokens, after.seed, after.exact) == (17, seed, exact)
    shuffled = replace(before, arrays=dict(reversed(arrays.items())))
    assert encode(shuffled) == data


def test_an_array_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(BadRequest, match="'x'"):
        encode(Snapshot(arrays={"x": np.array(["text"])}, logits=None, window=np.zeros(0, np.int32)))


def test_an_object_is_named_by_its_hash(store: Store) -> None:
    object_id = say(store, "a", b"hello").object
    path = only_file(store)
    assert path.name == f"{object_id}.safetensors"
    assert path.parent.name == object_id[:2]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == object_id


def test_a_flip_anywhere_is_found(store: Store) -> None:
    say(store, "a", b"hello")
    path = only_file(store)
    whole = path.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    places = [0, 3, 7, 8, 20, header_end // 2, header_end - 1, header_end, header_end + 5, len(whole) - 1]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Corrupt, match=path.name):
            store.load(Ref("a"))
        assert [path.name in fault for fault in store.verify().faults] == [True]
    path.write_bytes(whole)
    assert store.verify().faults == []
    check_text(store, "a")


@pytest.mark.parametrize("length", [0, 7, 8, 100, -1])
def test_a_file_cut_short_is_found(store: Store, length: int) -> None:
    say(store, "a", b"hello")
    path = only_file(store)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(Corrupt, match=path.name):
        store.load(Ref("a"))
    assert len(store.verify().faults) == 1


def test_a_missing_file_is_found_and_not_silently_replayed(store: Store) -> None:
    say(store, "a", b"hello")
    path = only_file(store)
    path.unlink()
    with pytest.raises(Corrupt, match="missing"):
        store.load(Ref("a"))
    assert len(store.verify().faults) == 1


def test_a_symbolic_link_is_not_followed(store: Store, tmp_path: Path) -> None:
    say(store, "a", b"hello")
    path = only_file(store)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt, match=path.name):
        store.load(Ref("a"))
    assert store.verify().faults


def test_a_damaged_object_is_written_anew_by_an_equal_commit(store: Store) -> None:
    say(store, "a", b"hello")
    path = only_file(store)
    path.write_bytes(b"x" * path.stat().st_size)
    say(store, "b", b"hello")
    assert store.verify().faults == []
    check_text(store, "a")


@pytest.mark.parametrize("part", ["fingerprint", "architecture", "layout"])
def test_another_models_checkpoint_is_refused(tmp_path: Path, part: str) -> None:
    other = replace(IDENTITY, **{part: "cd" * 32})
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"hello")
    with Store(tmp_path / "s", "toy", other) as store:
        with pytest.raises(WrongModel, match="the model here is"):
            store.load(Ref("a"))
        assert store.verify().faults == []


def test_another_dtype_is_admitted_as_inexact_and_stays_so(tmp_path: Path) -> None:
    half = Identity(IDENTITY.fingerprint, IDENTITY.architecture, IDENTITY.layout, "bf16")
    with open_store(tmp_path / "s") as store:
        say(store, "a", b"hello")
        assert store.load(Ref("a")).snapshot.exact
    with Store(tmp_path / "s", "toy", half) as store:
        loaded = store.load(Ref("a")).snapshot
        assert not loaded.exact
        grown = replace(loaded, parent=loaded.object, tokens=loaded.tokens, object="")
        store.commit(grown, Read(np.zeros(0, np.int32), b""), "a")
        assert not store.row(Ref("a")).exact
    with open_store(tmp_path / "s") as store:
        assert not store.load(Ref("a")).snapshot.exact


def test_files_refuse_what_is_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="regular"):
        Files().open(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(NotADirectoryError):
        Files().make_directory(tmp_path / "link")
