"""State files with weights, taken in by the models that they were trained from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from variant_toys import HOUSES, House, Weights

from ssmprov import ops, wire
from ssmprov.errors import Corrupt
from ssmprov.names import Ref
from ssmprov.statefile import Origin, write_state
from workers.adoption import take_in
from workers.answers import Outcome
from workers.checkpoints import RequestKey, Store
from workers.context import Arrays, Identity
from workers.runtimes.base import Feed, Tunable


@pytest.fixture(params=list(HOUSES))
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    before = torch.get_num_threads()
    yield HOUSES[request.param](tmp_path)
    torch.set_num_threads(before)  # a runtime that is opened sets them


@pytest.fixture
def store(house: House) -> Store:
    return Store(house.folder, "tiny", house.served().identity)


def key(number: int) -> RequestKey:
    return RequestKey(bytes([number]) * 16, 600)


def take(store: Store, house: House, name: str, arrays: Arrays, weights: Weights, tokens: int = 0) -> ops.Row:
    runtime, path = house.served(), house.folder / "file"
    identity: Identity = runtime.identity
    write_state(path, arrays, Origin(identity.fingerprint, identity.architecture, identity.layout, tokens), weights)
    answer = take_in(store, runtime, path, name, key(len(name)))
    return wire.unpack(msgspec.msgpack.decode(answer, type=Outcome).result, ops.Row)


def test_both_runtimes_take_weights(house: House) -> None:
    assert isinstance(house.served(), Tunable)


def test_a_state_is_read_with_the_weights_that_came_with_it(house: House, store: Store) -> None:
    with store:
        trained, served = house.served(seed=6), house.served()
        prompt = served.tokenize("some words")
        trained.forward([Feed(0, prompt)])
        row = take(store, house, "read", trained.save(0), house.tensors(6), tokens=len(prompt))
        assert (row.opaque, row.tokens) == (True, len(prompt))
        served.load(1, store.load(Ref("read")).snapshot.arrays)
        assert np.array_equal(served.forward([Feed(1, [9])]), trained.forward([Feed(0, [9])]))


def test_an_empty_state_may_be_written_out_or_left_out(house: House, store: Store) -> None:
    with store:
        trained, served = house.served(seed=6), house.served()
        take(store, house, "written", trained.save(0), house.tensors(6))
        take(store, house, "left", {}, house.tensors(6))
        for slot, name in enumerate(("written", "left")):
            served.load(slot, store.load(Ref(name)).snapshot.arrays)
        logits = served.forward([Feed(slot, served.tokenize("abc")) for slot in (0, 1)])
        wanted = trained.forward([Feed(slot, served.tokenize("abc")) for slot in (0, 1)])
        assert np.array_equal(logits, wanted)


def test_nothing_is_left_of_what_is_refused(house: House, store: Store) -> None:
    with store:
        state = house.served().save(0)
        some = dict(list(house.tensors(6).items())[1:])
        for arrays, weights, tokens in ((state, some, 0), ({}, {}, 0), ({}, house.tensors(6), 3)):
            with pytest.raises(Corrupt):
                take(store, house, "refused", arrays, weights, tokens)
        assert store.ls().rows == []
        assert not house.weights.directory.exists()
