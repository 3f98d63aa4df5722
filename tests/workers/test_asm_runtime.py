"""The asm runtime keeps what every runtime promises, for each scan and position mode: states, batches, slices, ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from asm_toys import CONFIG, KINDS, asm_model, asm_runtime

from ssmprov.errors import BadRequest, Corrupt
from workers.context import Arrays
from workers.runtimes.asm import runtime as module
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Feed, Logits

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = "(Turn 1) [USER]: Grüße an alle\n\n~~~("
NEAR = 3e-4
"""Logits have a spread of about 5; other shapes of batches add in another order, and random weights are coarse."""


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def distance(a: Logits, b: Logits) -> float:
    return float(np.abs(a - b).max())


def same(a: Arrays, b: Arrays) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def step(runtime: AsmRuntime, slot: int, tokens: list[int]) -> Logits:
    return runtime.forward([Feed(slot, tokens)])[0]


def greedy(runtime: AsmRuntime, slot: int, logits: Logits, count: int) -> list[int]:
    said = []
    for _ in range(count):
        said.append(int(logits.argmax()))
        logits = step(runtime, slot, said[-1:])
    return said


def test_it_computes_what_the_model_computes(tmp_path: Path, kind: str) -> None:
    runtime, model = asm_runtime(tmp_path, 3, kind), asm_model(**KINDS[kind])
    texts = [runtime.tokenize(text) for text in (TEXT, "x", "two words, and a few more of them")]
    rows = runtime.forward([Feed(slot, tokens) for slot, tokens in enumerate(texts)])
    for slot, tokens in enumerate(texts):
        with torch.no_grad():
            wanted = model(torch.tensor([[*tokens, 9]]))[0][0].numpy()
        assert distance(rows[slot], wanted[-2]) <= NEAR
        assert distance(step(runtime, slot, [9]), wanted[-1]) <= NEAR
        assert wanted.std() > 1, "the logits say something"


def test_a_state_is_saved_and_loaded_bit_for_bit(tmp_path: Path, kind: str) -> None:
    runtime = asm_runtime(tmp_path, 3, kind)
    tokens = runtime.tokenize(TEXT)
    runtime.forward([Feed(0, tokens), Feed(1, runtime.tokenize("other"))])
    state = runtime.save(0)
    layers, heads, slots = CONFIG["num_layers"], CONFIG["num_heads"], CONFIG["num_slots"]
    shapes = {"m": (), "den": (), "num": (8,)} | ({"m0": (), "den0": (), "num0": (8,)} if kind == "chunked" else {})
    wanted = {name: (layers, heads, slots, *rest) for name, rest in shapes.items()} | {"t": (1,)}
    if kind != "plain":
        wanted |= {"S": (layers, heads, 6, 6), "Z": (layers, heads, 6)}
    assert {name: array.shape for name, array in state.items()} == wanted
    assert {array.dtype for name, array in state.items() if name != "t"} == {np.dtype(np.float32)}
    assert state["t"].dtype == np.int64
    assert state["t"][0] == len(tokens)
    assert sum(array.nbytes for array in state.values()) == runtime.state_bytes
    runtime.load(2, state)
    assert same(runtime.save(0), state)
    assert same(runtime.save(2), state)
    assert not np.array_equal(runtime.save(1)["num"], state["num"])


def test_a_loaded_state_goes_on_exactly_as_the_original(tmp_path: Path, kind: str) -> None:
    runtime = asm_runtime(tmp_path, 2, kind)
    logits = step(runtime, 0, runtime.tokenize(TEXT))
    runtime.load(1, runtime.save(0))
    for token in [*greedy(asm_runtime(tmp_path, 1, kind), 0, logits, 5), *runtime.tokenize("and on")]:
        assert np.array_equal(step(runtime, 0, [token]), step(runtime, 1, [token]))
    assert same(runtime.save(0), runtime.save(1))


def test_what_was_saved_does_not_change_when_the_slot_reads_on(tmp_path: Path, kind: str) -> None:
    for slots in (1, 2):
        runtime = asm_runtime(tmp_path, slots, kind)
        step(runtime, 0, runtime.tokenize(TEXT))
        state = runtime.save(0)
        before = {name: array.copy() for name, array in state.items()}
        step(runtime, 0, [9])
        step(runtime, 0, [9, 10])
        assert same(state, before)
        for array in state.values():
            array.flags.writeable = False
        runtime.load(0, state)
        step(runtime, 0, [9])
        assert same(state, before)


def test_an_emptied_slot_has_read_nothing(tmp_path: Path, kind: str) -> None:
    runtime = asm_runtime(tmp_path, 2, kind)
    empty = runtime.save(0)
    first = step(runtime, 0, runtime.tokenize(TEXT))
    runtime.load(0, {})
    assert same(runtime.save(0), empty)
    assert np.array_equal(step(runtime, 0, runtime.tokenize(TEXT)), first)
    runtime.load(0, empty)
    assert np.array_equal(step(runtime, 0, runtime.tokenize(TEXT)), first)


def test_a_batch_says_what_each_context_says_alone(tmp_path: Path, kind: str) -> None:
    together = asm_runtime(tmp_path, 3, kind)
    texts = [TEXT, "x", "é" * 20]
    feeds = [Feed(slot, together.tokenize(text)) for slot, text in enumerate(texts)]
    rows = together.forward(feeds)
    alone = [asm_runtime(tmp_path, 1, kind) for _ in texts]
    singles = [step(runtime, 0, list(feed.tokens)) for runtime, feed in zip(alone, feeds, strict=True)]
    said: list[list[int]] = [[] for _ in texts]
    for count in range(24):
        for row, single in zip(rows, singles, strict=True):
            assert distance(row, single) <= NEAR, count
        tokens = [int(row.argmax()) for row in rows]
        assert tokens == [int(single.argmax()) for single in singles]
        for context, token in zip(said, tokens, strict=True):
            context.append(token)
        rows = together.forward([Feed(slot, [token]) for slot, token in enumerate(tokens)])
        singles = [step(runtime, 0, [token]) for runtime, token in zip(alone, tokens, strict=True)]
    assert len({token for context in said for token in context}) > 5, "the contexts say something"


def test_only_the_fed_slots_read_and_in_any_order(tmp_path: Path, kind: str) -> None:
    runtime, alone = asm_runtime(tmp_path, 4, kind), asm_runtime(tmp_path, 1, kind)
    for slot in range(4):
        step(runtime, slot, runtime.tokenize(f"slot {slot}" * (slot + 1)))
    before = [runtime.save(slot) for slot in range(4)]
    feeds = [(3, [5]), (1, [6, 7, 8]), (0, [5, 9])]
    rows = runtime.forward([Feed(slot, tokens) for slot, tokens in feeds])
    assert same(runtime.save(2), before[2])
    for row, (slot, tokens) in zip(rows, feeds, strict=True):
        alone.load(0, before[slot])
        assert distance(step(alone, 0, tokens), row) <= NEAR
        for name, array in alone.save(0).items():
            assert np.allclose(array, runtime.save(slot)[name], atol=1e-4)


def test_a_prompt_in_slices_is_the_prompt_in_one_go(tmp_path: Path, kind: str) -> None:
    whole, sliced = asm_runtime(tmp_path, 1, kind), asm_runtime(tmp_path, 1, kind)
    tokens = whole.tokenize(TEXT * 2)
    at_once = step(whole, 0, tokens)
    for width in (1, 7, 50):
        sliced.load(0, {})
        for at in range(0, len(tokens), width):
            last = step(sliced, 0, tokens[at : at + width])
        assert distance(last, at_once) <= NEAR
        assert all(np.allclose(sliced.save(0)[name], array, atol=1e-3) for name, array in whole.save(0).items())


def test_prefills_beyond_the_bound_are_split_into_calls(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, split = asm_runtime(tmp_path, 4, kind), asm_runtime(tmp_path, 4, kind)
    feeds = [Feed(slot, together.tokenize("word " * (slot + 1))) for slot in range(4)]
    at_once = together.forward(feeds)
    monkeypatch.setattr(module, "MAX_BATCH_TOKENS", 12)
    assert distance(split.forward(feeds), at_once) <= NEAR


def test_logits_at_hand_are_not_overwritten_by_the_next_step(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    first = runtime.forward([Feed(0, [5])])
    before = first.copy()
    runtime.forward([Feed(0, [6])])
    assert np.array_equal(first, before)


@pytest.mark.parametrize("seed", [1])
def test_whatever_happens_to_slots_each_context_is_what_it_has_read(tmp_path: Path, kind: str, seed: int) -> None:
    """A random walk of feeds, batches, forks, saves and loads, against one slot that reads every text anew."""
    rng = np.random.default_rng(seed)
    walker, oracle = asm_runtime(tmp_path, 4, kind), asm_runtime(tmp_path, 1, kind)
    texts: list[list[int]] = [[] for _ in range(4)]
    saved: list[tuple[list[int], Arrays]] = [([], walker.save(0))]
    for _ in range(60):
        slot = int(rng.integers(4))
        match str(rng.choice(["feed", "batch", "batch", "fork", "empty", "save", "load"])):
            case "feed" | "batch" as how:
                chosen = [slot] if how == "feed" else [int(s) for s in rng.permutation(4)[: rng.integers(2, 5)]]
                most = int(rng.choice([1, 14]))
                feeds = [Feed(s, rng.integers(1, 257, rng.integers(1, most + 1)).tolist()) for s in chosen]
                rows = walker.forward(feeds)
                for row, feed in zip(rows, feeds, strict=True):
                    texts[feed.slot] = [*texts[feed.slot], *feed.tokens]
                    if rng.random() < 0.3:
                        oracle.load(0, {})
                        assert distance(step(oracle, 0, texts[feed.slot]), row) <= 10 * NEAR
            case "fork":
                source = int(rng.integers(4))
                walker.load(slot, walker.save(source))
                texts[slot] = texts[source]
            case "empty":
                walker.load(slot, {})
                texts[slot] = []
            case "save":
                saved = [*saved[-5:], (texts[slot], walker.save(slot))]
            case _:
                texts[slot], arrays = saved[int(rng.integers(len(saved)))]
                walker.load(slot, arrays)
        assert [int(walker.save(s)["t"][0]) for s in range(4)] == [len(text) for text in texts]


def test_an_absolute_context_ends_and_a_cyclic_one_does_not(tmp_path: Path) -> None:
    absolute, cyclic = asm_runtime(tmp_path, 2, "exact"), asm_runtime(tmp_path, 2, "cyclic")
    assert (absolute.context_tokens, cyclic.context_tokens) == (2048, None)
    step(absolute, 0, [5] * 2040)
    kept = [absolute.save(slot) for slot in (0, 1)]
    with pytest.raises(BadRequest, match=r'slot 0 would read 2049 tokens.*end at 2048.*pos_mode = "cyclic"'):
        absolute.forward([Feed(1, [3]), Feed(0, [5] * 9)])
    assert all(same(absolute.save(slot), kept[slot]) for slot in (0, 1))
    step(absolute, 0, [5] * 8)
    step(cyclic, 0, [5] * 100)
    assert cyclic.save(0)["t"][0] == 100


FAULTS = {
    "missing": lambda s: {name: s[name] for name in s if name != "Z"},
    "without t": lambda s: {name: s[name] for name in s if name != "t"},
    "more": lambda s: {**s, "m0": s["m"]},
    "shape": lambda s: {**s, "num": s["num"][..., :-1]},
    "layers": lambda s: {**s, "m": np.concatenate([s["m"]] * 2)},
    "dtype": lambda s: {**s, "S": s["S"].astype(np.float64)},
    "t as float": lambda s: {**s, "t": s["t"].astype(np.float64)},
    "no numbers": lambda s: {name: s[name][:0] for name in s},
    "negative t": lambda s: {**s, "t": -s["t"]},
    "past the end": lambda s: {**s, "t": s["t"] + 2048},
    "nothing read": lambda s: {**s, "t": s["t"] * 0},
    "den below 0": lambda s: {**s, "den": -s["den"]},
    "den 0": lambda s: {**s, "den": s["den"] * 0},
    "Z below 0": lambda s: {**s, "Z": -s["Z"]},
    "m of nothing": lambda s: {**s, "m": s["m"] - np.float32(np.inf)},
    "m infinite": lambda s: {**s, "m": s["m"] + np.float32(np.inf)},
    **{f"NaN in {n}": lambda s, n=n: {**s, n: s[n] + np.float32(np.nan)} for n in ("m", "den", "num", "S", "Z")},
    "an infinite S": lambda s: {**s, "S": s["S"] + np.float32(np.inf)},
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_state_that_does_not_fit_is_refused_and_the_slot_stands(tmp_path: Path, fault: str) -> None:
    runtime = asm_runtime(tmp_path, 1)
    step(runtime, 0, runtime.tokenize(TEXT))
    state = runtime.save(0)
    with pytest.raises(Corrupt, match="this checkpoint"):
        runtime.load(0, FAULTS[fault](state))
    assert same(runtime.save(0), state)


@pytest.mark.parametrize(("mine", "other"), [("exact", "chunked"), ("chunked", "exact"), ("exact", "plain")])
def test_a_state_of_another_scan_or_form_is_refused(tmp_path: Path, mine: str, other: str) -> None:
    one, two = asm_runtime(tmp_path, 1, mine), asm_runtime(tmp_path, 1, other)
    step(two, 0, [5] * 20)
    with pytest.raises(Corrupt, match="this model's state is"):
        one.load(0, two.save(0))
    assert one.identity.layout != two.identity.layout


def test_the_memory_of_finished_chunks_begins_when_one_is(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 2, "chunked")
    for t in range(20):
        state = runtime.save(0)
        assert np.isfinite(state["m0"]).all() == (t >= 8)
        runtime.load(1, state)
        assert same(runtime.save(1), state)
        step(runtime, 0, [5 + t])
    with pytest.raises(Corrupt, match="m0 has values before"):
        runtime.load(1, {**runtime.save(0), "t": np.array([7])})
    with pytest.raises(Corrupt, match="m0 holds values that are NaN or infinite"):
        runtime.load(1, {**runtime.save(0), "m0": np.full((2, 2, 5), -np.inf, np.float32)})


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.5), ("fp16", 0.05)])
def test_coarser_numbers_stay_near_and_keep_their_state_in_fp32(tmp_path: Path, dtype: str, bound: float) -> None:
    exact, coarse = asm_runtime(tmp_path, 1), asm_runtime(tmp_path, 1, dtype=dtype)
    assert coarse.identity.dtype == dtype
    assert (coarse.identity.fingerprint, coarse.identity.layout) == (exact.identity.fingerprint, exact.identity.layout)
    tokens = exact.tokenize(TEXT)
    errors = []
    for piece in (tokens[:-20], *([token] for token in tokens[-20:])):
        wanted = step(exact, 0, piece)
        errors.append(distance(step(coarse, 0, piece), wanted) / float(wanted.std()))
    assert 0 < max(errors) <= bound, errors
    state = coarse.save(0)
    assert state["num"].dtype == np.float32
    exact.load(0, state)
    assert same(exact.save(0), state)
