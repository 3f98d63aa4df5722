"""States in memory: found by their object, bounded in bytes, the least recently used let go first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.context import Snapshot
from workers.state_cache import StateCache


def state(name: str, size: int) -> Snapshot:
    """A committed snapshot of `size` bytes."""
    return Snapshot(arrays={"a": np.zeros(size, np.uint8)}, logits=None, window=np.zeros(0, np.int32), object=name)


def held(cache: StateCache, names: str) -> str:
    return "".join(name for name in names if cache.get(name) is not None)


def test_a_state_is_found_by_its_object() -> None:
    cache = StateCache(100)
    kept = state("a", 10)
    cache.put(kept)
    assert cache.get("a") is kept
    assert cache.get("b") is None


def test_the_size_of_a_state_is_all_that_it_holds() -> None:
    logits, window = np.zeros(5, np.float32), np.zeros(3, np.int32)
    snapshot = Snapshot(
        arrays={"a": np.zeros((2, 3), np.float32), "b": np.zeros(7, np.uint8)}, logits=logits, window=window, object="a"
    )
    assert snapshot.state_bytes == 24 + 7 + 20 + 12
    cache = StateCache(1000)
    cache.put(snapshot)
    assert cache.bytes == snapshot.state_bytes


def test_the_least_recently_used_goes_first() -> None:
    cache = StateCache(30)
    for name in "abc":
        cache.put(state(name, 10))
    assert cache.get("a") is not None
    cache.put(state("d", 10))
    assert held(cache, "abcd") == "acd"


def test_putting_a_state_again_is_a_use_and_counts_once() -> None:
    cache = StateCache(20)
    cache.put(state("a", 10))
    cache.put(state("b", 10))
    cache.put(state("a", 10))
    assert cache.bytes == 20
    cache.put(state("c", 10))
    assert held(cache, "abc") == "ac"


def test_a_state_larger_than_the_budget_is_not_kept_and_drives_nothing_out() -> None:
    cache = StateCache(20)
    cache.put(state("a", 20))
    cache.put(state("b", 21))
    assert held(cache, "ab") == "a"
    none = StateCache(0)
    none.put(state("a", 1))
    assert len(none) == none.bytes == 0


@given(st.integers(0, 60), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40), st.booleans())))
def test_the_budget_holds_whatever_is_put(budget: int, puts: list[tuple[str, int, bool]]) -> None:
    cache = StateCache(budget)
    sizes: dict[str, int] = {}
    for name, size, look in puts:
        if look:
            cache.get(name)
            continue
        cache.put(state(name, sizes.setdefault(name, size)))
        assert cache.bytes <= budget
        assert (cache.get(name) is not None) == (sizes[name] <= budget)
        present = held(cache, "abcdefgh")
        assert cache.bytes == sum(sizes[key] for key in present)
        assert len(cache) == len(present)
