"""States in memory: found by their object, bounded in bytes, the least recently used let go first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.context import Snapshot
from workers.hot import HotStates


def state(name: str, size: int) -> Snapshot:
    """A committed snapshot of `size` bytes."""
    return Snapshot({"a": np.zeros(size, np.uint8)}, None, np.zeros(0, np.int32), object=name)


def held(hot: HotStates, names: str) -> str:
    return "".join(name for name in names if hot.get(name) is not None)


def test_a_state_is_found_by_its_object() -> None:
    hot = HotStates(100)
    kept = state("a", 10)
    hot.put(kept)
    assert hot.get("a") is kept
    assert hot.get("b") is None


def test_the_size_of_a_state_is_all_that_it_holds() -> None:
    logits, window = np.zeros(5, np.float32), np.zeros(3, np.int32)
    snapshot = Snapshot({"a": np.zeros((2, 3), np.float32), "b": np.zeros(7, np.uint8)}, logits, window, object="a")
    assert snapshot.state_bytes == 24 + 7 + 20 + 12
    hot = HotStates(1000)
    hot.put(snapshot)
    assert hot.bytes == snapshot.state_bytes


def test_the_least_recently_used_goes_first() -> None:
    hot = HotStates(30)
    for name in "abc":
        hot.put(state(name, 10))
    assert hot.get("a") is not None
    hot.put(state("d", 10))
    assert held(hot, "abcd") == "acd"


def test_putting_a_state_again_is_a_use_and_counts_once() -> None:
    hot = HotStates(20)
    hot.put(state("a", 10))
    hot.put(state("b", 10))
    hot.put(state("a", 10))
    assert hot.bytes == 20
    hot.put(state("c", 10))
    assert held(hot, "abc") == "ac"


def test_a_state_larger_than_the_budget_is_not_kept_and_drives_nothing_out() -> None:
    hot = HotStates(20)
    hot.put(state("a", 20))
    hot.put(state("b", 21))
    assert held(hot, "ab") == "a"
    none = HotStates(0)
    none.put(state("a", 1))
    assert len(none) == none.bytes == 0


@given(st.integers(0, 60), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40), st.booleans())))
def test_the_budget_holds_whatever_is_put(budget: int, puts: list[tuple[str, int, bool]]) -> None:
    hot = HotStates(budget)
    sizes: dict[str, int] = {}
    for name, size, look in puts:
        if look:
            hot.get(name)
            continue
        hot.put(state(name, sizes.setdefault(name, size)))
        assert hot.bytes <= budget
        assert (hot.get(name) is not None) == (sizes[name] <= budget)
        present = held(hot, "abcdefgh")
        assert hot.bytes == sum(sizes[key] for key in present)
        assert len(hot) == len(present)
