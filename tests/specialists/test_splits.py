"""Train, validation and test stay apart, and rows stay where they are when others come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specialists.rows import Row
from specialists.splits import PARTS, Shares, contamination, part_of, refuse_contamination, split
from ssmprov.errors import BadRequest

SHARES = Shares(0.6, 0.2, 0.2)


def rows_of(prompts: list[str]) -> list[Row]:
    return [Row(line, prompt, f"answer {line}") for line, prompt in enumerate(prompts, 1)]


@given(st.lists(st.text(max_size=5)), st.integers(0, 2**32))
def test_each_row_goes_to_one_part_and_equal_prompts_go_together(prompts: list[str], seed: int) -> None:
    rows = rows_of(prompts)
    parts = split(rows, SHARES, seed).parts
    assert sorted(row.line for part in PARTS for row in parts[part]) == [row.line for row in rows]
    assert contamination(parts) == []
    assert all(part_of(row.prompt, SHARES, seed) == part for part in PARTS for row in parts[part])


def test_the_shares_are_about_as_asked() -> None:
    parts = split(rows_of([str(n) for n in range(3000)]), SHARES, 1).parts
    assert 1700 < len(parts["train"]) < 1900
    assert 500 < len(parts["validation"]) < 700


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"(validation|test) got no rows"):
        split(rows_of(["a"] * 50), Shares(0.98, 0.01, 0.01), 0).refuse_empty()


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.5, 0.2, 0.2), (-0.5, 1.0, 0.5)])
def test_shares_are_positive_and_sum_to_one(shares: tuple[float, float, float]) -> None:
    with pytest.raises(BadRequest, match="sum to 1"):
        Shares(*shares)


def test_what_stands_in_two_parts_is_told() -> None:
    train = [Row(1, "a", "x"), Row(2, "b", "y")]
    test = [Row(1, "b", "other"), Row(2, "a", "x"), Row(3, "c", "z")]
    found = contamination({"train": train, "test": test})
    assert [(one.kind, one.line, one.other, one.other_line) for one in found] == [
        ("prompt", 1, "train", 2),
        ("row", 2, "train", 1),
    ]
    with pytest.raises(BadRequest, match="the row in line 2 of test is also in line 1 of train"):
        refuse_contamination({"train": train, "test": test})
    refuse_contamination({"train": train, "test": test[2:]})
