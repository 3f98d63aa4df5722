"""Contexts that name weights of their own: each is read with these, whatever is batched together."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asm_toys import CONFIG
from numpy.typing import NDArray
from variant_toys import HOUSES, House, Served, asm_house, rwkv_house

from ssmprov.errors import Corrupt, NotFound
from ssmprov.statefile import weights_id
from workers.context import WEIGHTS, Arrays
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Feed, Logits, Reading
from workers.variants import SPARE, Variants

pytestmark = pytest.mark.usefixtures("one_thread")

NEAR = 3e-4
"""Other shapes of batches add in another order, and random weights are coarse."""

TEXTS = ("(Turn 1) [USER]: Grüße an alle\n\n~~~(", "x", "two words, and more", "(Turn 1) [USER]: Gr")


@pytest.fixture(params=list(HOUSES))
def house(request: pytest.FixtureRequest, tmp_path: Path) -> House:
    return HOUSES[request.param](tmp_path)


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def begin(runtime: Served, slot: int, named: NDArray[np.uint8] | None) -> None:
    """Put the state that has read nothing into a slot, to be read with these weights."""
    runtime.load(slot, {} if named is None else {WEIGHTS: named})


def greedy(runtime: Served, texts: dict[int, str], steps: int) -> tuple[dict[int, list[int]], list[dict[int, Logits]]]:
    """What is said in each slot after its text, all slots together, and the logits of each step."""
    said: dict[int, list[int]] = {slot: [] for slot in texts}
    seen = []
    feeds = [Feed(slot, runtime.tokenize(text)) for slot, text in texts.items()]
    for _ in range(steps):
        rows = runtime.forward(feeds)
        seen.append({feed.slot: row for feed, row in zip(feeds, rows, strict=True)})
        feeds = [Feed(slot, [int(row.argmax())]) for slot, row in seen[-1].items()]
        for feed in feeds:
            said[feed.slot] += feed.tokens
    return said, seen


PLANS: list[tuple[str, dict[str, Any]]] = [
    ("rwkv", {}),
    ("asm", {}),
    ("rwkv", {"dtype": "fp32", "prefill_dtype": "bf16", "quantize": "int8"}),
    ("asm", {"scan": "chunked:8"}),
]


@pytest.mark.parametrize(("kind", "plan"), PLANS, ids=["rwkv", "asm", "rwkv-int8", "asm-chunked"])
def test_each_row_of_a_batch_is_read_with_its_own_weights(tmp_path: Path, kind: str, plan: dict[str, Any]) -> None:
    house = HOUSES[kind](tmp_path)
    runtime = house.served(**plan)
    owners = {0: 5, 1: 6, 2: 7, 3: 6}
    for slot, seed in owners.items():
        begin(runtime, slot, None if seed == 5 else house.put(seed))
    said, seen = greedy(runtime, dict(enumerate(TEXTS)), 8)
    coarse = "quantize" in plan
    for slot, seed in owners.items():
        alone = house.served(seed=seed, **plan)
        wanted, logits = greedy(alone, {slot: TEXTS[slot]}, 8)
        if not coarse:
            assert said[slot] == wanted[slot]
        for ours, theirs in zip(seen[: 1 if coarse else 8], logits, strict=False):
            assert np.abs(ours[slot] - theirs[slot]).max() <= (0.05 if coarse else NEAR)
    other, _ = greedy(house.served(**plan), {1: TEXTS[1]}, 8)
    assert other[1] != said[1], "the weights make a difference"


def test_slots_without_variants_are_read_as_ever(house: House) -> None:
    mixed, plain = house.served(), house.served()
    begin(mixed, 3, house.put(6))
    texts = dict(enumerate(TEXTS[:3]))
    for mine, other in zip(greedy(mixed, texts, 4)[1], greedy(plain, texts, 4)[1], strict=True):
        assert all(np.array_equal(mine[slot], other[slot]) for slot in texts)
    assert all(WEIGHTS not in mixed.save(slot) for slot in texts)
    assert same(mixed.save(0), plain.save(0))


def test_what_is_saved_names_the_weights_and_goes_on_elsewhere_bit_for_bit(house: House) -> None:
    named = house.put(6)
    first, second = house.served(), house.served()
    begin(first, 0, named)
    greedy(first, {0: TEXTS[0]}, 3)
    state = first.save(0)
    assert np.array_equal(state[WEIGHTS], named)
    second.load(2, state)
    assert same(second.save(2), state)
    token = [9]
    assert np.array_equal(first.forward([Feed(0, token)]), second.forward([Feed(2, token)]))
    second.load(2, {})
    assert WEIGHTS not in second.save(2), "an empty slot is the model's own again"


def test_weights_that_are_missing_or_damaged_leave_all_slots_as_they_were(house: House) -> None:
    named, other = house.put(6), house.put(7)
    runtime = house.served()
    begin(runtime, 1, other)
    greedy(runtime, {0: "a", 1: "b"}, 2)
    before = [runtime.save(slot) for slot in (0, 1)]
    path = house.weights.path(named.tobytes().hex())
    data = path.read_bytes()
    path.unlink()
    for slot in (0, 1):
        with pytest.raises(NotFound, match=r"are not here: import its state file first"):
            begin(runtime, slot, named)
    path.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(Corrupt, match="do not match its hash"):
        begin(runtime, 0, named)
    with pytest.raises(Corrupt, match="which is not a hash"):
        runtime.load(0, {WEIGHTS: np.zeros(31, np.uint8)})
    foreign, number = weights_id({"a": np.zeros(3, np.float32)})
    house.weights.write(number.hex(), foreign)
    with pytest.raises(Corrupt, match="do not fit this model"):
        begin(runtime, 0, np.frombuffer(number, np.uint8))
    with pytest.raises(Corrupt, match="this model's state"):
        runtime.load(0, {WEIGHTS: other, "more": np.zeros(3, np.float32)})
    assert same(runtime.save(0), before[0])
    assert same(runtime.save(1), before[1])
    path.write_bytes(data)
    begin(runtime, 0, named)
    assert np.array_equal(runtime.save(0)[WEIGHTS], named)


def test_without_a_folder_a_variant_is_not_found(tmp_path: Path) -> None:
    variants = Variants("own", 1, None, lambda _data, _name: "other")
    assert variants.find({}).model == "own"
    with pytest.raises(NotFound, match="no store is open"):
        variants.find({WEIGHTS: np.zeros(32, np.uint8)})


def test_few_variants_that_no_slot_holds_stay_in_memory(tmp_path: Path) -> None:
    house = rwkv_house(tmp_path)
    built: list[str] = []

    def build(data: bytes, _name: str) -> str:
        built.append(data.decode())
        return built[-1]

    def named(number: int) -> Arrays:
        data = f"weights {number}".encode()
        digest = hashlib.sha256(data).digest()
        house.weights.write(digest.hex(), data)
        return {WEIGHTS: np.frombuffer(digest, np.uint8)}

    variants = Variants("own", 2, house.folder / "weights", build)
    variants.hold(0, variants.find(named(0)))
    for number in range(1, SPARE + 4):
        variants.hold(1, variants.find(named(number)))
        assert len(variants) <= SPARE + 2
    assert len(built) == SPARE + 4
    variants.find(named(0))
    variants.find(named(SPARE + 3))
    variants.find(named(4))
    assert len(built) == SPARE + 4, "those that a slot holds, and the ones used last, are here"
    variants.find(named(1))
    assert len(built) == SPARE + 5, "the one used longest ago was let go"


def refusals(house: House) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    good = house.tensors(6)
    name = "ln_f.bias" if "ln_f.bias" in good else "ln_out.bias"
    yield name, {key: array for key, array in good.items() if key != name}
    yield name, good | {name: np.zeros(3, np.float32)}
    yield name, good | {name: good[name].astype(np.float64)}
    yield name, good | {name: good[name].astype(np.int32)}
    yield "stranger", good | {"stranger": np.zeros(3, np.float32)}


def test_weights_of_other_names_shapes_and_types_are_refused(house: House) -> None:
    runtime = house.served()
    runtime.check_weights(house.tensors(6))
    runtime.check_weights({name: array.astype(np.float16) for name, array in house.tensors(6).items()})
    for name, bad in refusals(house):
        with pytest.raises(Corrupt, match=name):
            runtime.check_weights(bad)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    house = rwkv_house(tmp_path)
    shallow = {name: array for name, array in house.tensors(6).items() if not name.startswith("blocks.1.")}
    with pytest.raises(Corrupt, match=r"lack blocks\.1\."):
        house.served().check_weights(shallow)
    deep = house.tensors(6) | {"blocks.999999999999.att.v0": np.zeros(3, np.float32)}
    with pytest.raises(Corrupt, match=r"blocks\.999999999999\.att\.v0"):
        house.served().check_weights(deep)


def test_official_names_that_nothing_reads_are_taken(tmp_path: Path) -> None:
    house = rwkv_house(tmp_path)
    house.served().check_weights(house.tensors(6) | {"blocks.0.att.v0": np.zeros(3, np.float32)})


def test_a_probe_looks_with_the_weights_of_its_context(tmp_path: Path) -> None:
    house = asm_house(tmp_path)
    runtime, alone = house.served(), house.served(seed=6)
    assert isinstance(runtime, AsmRuntime)
    assert isinstance(alone, AsmRuntime)
    begin(runtime, 0, house.put(6))
    for each in (runtime, alone):
        each.forward([Feed(0, each.tokenize(TEXTS[0]))])
    text = runtime.tokenize(" and on")
    found = runtime.probe(runtime.save(0), text, Reading(), 4)
    wanted = alone.probe(alone.save(0), text, Reading(), 4)
    assert np.abs(found.logits - wanted.logits).max() <= NEAR
    assert list(found.reply) == list(wanted.reply)
    assert len(found.layers) == CONFIG["num_layers"]
    own = runtime.probe({}, text, Reading(), 0)
    assert np.abs(own.logits - runtime.probe({WEIGHTS: runtime.save(0)[WEIGHTS]}, text, Reading(), 0).logits).max() > 1
