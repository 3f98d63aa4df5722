"""Taking over what another program saved: an opaque root under a new name, once for each request."""

from __future__ import annotations

import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest
from turn_toys import ToyRuntime

from ssmprov import ops, wire
from ssmprov.errors import BadRequest, Conflict, Corrupt, Unsupported
from ssmprov.names import Ref
from workers.adoption import adopter, refuse_untrusted, take_over
from workers.answers import Outcome
from workers.checkpoints import RequestKey, Store
from workers.context import Identity
from workers.runtimes.base import Adopted, Adopts

IDENTITY = Identity("ab" * 32, "toy", "toy L1", "fp32")


class Adopter(ToyRuntime):
    """Takes any blob over but one that says that it is damaged."""

    def __init__(self) -> None:
        super().__init__([], lambda _runtime, _text: np.zeros(2, np.float32))
        self.asked: list[tuple[bytes, int]] = []

    def adopt(self, blob: bytes, tokens: int) -> Adopted:
        self.asked.append((blob, tokens))
        if blob == b"damaged":
            raise Corrupt("this is no state of this model's shape")
        return Adopted({"state": np.frombuffer(blob, np.uint8)}, None, tokens)


@pytest.fixture
def runtime() -> Adopter:
    return Adopter()


def key(number: int) -> RequestKey:
    return RequestKey(bytes([number]) * 16, 600)


def pickled(path: Path, blob: bytes = b"state", tokens: int = 7) -> Path:
    path.write_bytes(pickle.dumps({"blob": blob, "n_tokens": tokens}, protocol=pickle.HIGHEST_PROTOCOL))
    return path


def row_of(answer: bytes) -> ops.Row:
    return wire.unpack(msgspec.msgpack.decode(answer, type=Outcome).result, ops.Row)


def test_it_becomes_an_opaque_root(tmp_path: Path, runtime: Adopter) -> None:
    with Store(tmp_path / "store", "toy", IDENTITY) as store:
        row = row_of(take_over(store, adopter("toy", runtime), pickled(tmp_path / "kv.pkl"), "old", key(1)))
        assert runtime.asked == [(b"state", 7)]
        assert (row.name, row.tokens, row.parent) == ("old", 7, "")
        assert store.head("old") == row.object
        for listed in (store.log(Ref("old")), store.tree()):
            [step] = listed.steps
            assert (step.kind, step.tokens, step.excerpt) == ("import", 7, "")
        snapshot = store.load(Ref("old")).snapshot
        assert snapshot.arrays["state"].tobytes() == b"state"
        assert (snapshot.logits, len(snapshot.window), snapshot.seed, snapshot.exact) == (None, 0, None, False)
        for ask in (store.text, store.tokens):
            with pytest.raises(Unsupported):
                ask(Ref("old"))
        assert store.verify().faults == []


def test_a_request_has_one_effect_and_a_taken_name_stays(tmp_path: Path, runtime: Adopter) -> None:
    path = pickled(tmp_path / "kv.pkl")
    with Store(tmp_path / "store", "toy", IDENTITY) as store:
        first = take_over(store, runtime.adopt, path, "old", key(1))
        assert take_over(store, runtime.adopt, path, "old", key(1)) == first
        assert len(runtime.asked) == 1
        with pytest.raises(Conflict):
            take_over(store, runtime.adopt, pickled(path, b"another"), "old", key(2))
        assert store.head("old") == row_of(first).object
        assert store.outcome(key(2).id) is None


def test_what_is_refused_leaves_nothing(tmp_path: Path, runtime: Adopter) -> None:
    export = tmp_path / "echo.ctx"
    export.write_bytes(b"SSMPROV\1 and so on")
    with Store(tmp_path / "store", "toy", IDENTITY) as store:
        with pytest.raises(Corrupt):
            take_over(store, runtime.adopt, pickled(tmp_path / "kv.pkl", b"damaged"), "old", key(1))
        with pytest.raises(BadRequest, match=r"only the kv\.pkl"):
            take_over(store, runtime.adopt, export, "old", key(2))
        assert store.ls().rows == []
        assert store.gc(dry_run=True).objects == 0


def test_a_runtime_that_cannot_says_which_can(tmp_path: Path) -> None:
    plain = ToyRuntime([], lambda _runtime, _text: np.zeros(2, np.float32))
    assert not isinstance(plain, Adopts)
    with (
        Store(tmp_path / "store", "toy", IDENTITY) as store,
        pytest.raises(Unsupported, match=r"the toy runtime cannot .* under the GGUF model"),
    ):
        take_over(store, adopter("toy", plain), pickled(tmp_path / "kv.pkl"), "old", key(1))


def test_without_trust_it_is_told_what_trust_means(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="ssmprov ckpt import FILE old --model toy --trust"):
        refuse_untrusted(pickled(tmp_path / "kv.pkl"), "toy", "old")
    (tmp_path / "echo.ctx").write_bytes(b"SSMPROV\1")
    refuse_untrusted(tmp_path / "echo.ctx", "toy", "old")
