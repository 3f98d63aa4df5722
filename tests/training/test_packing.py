"""Rows are packed whole, each in a lane of its own, and only their answers count."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.packing import Sample, batch_at, pack, reply_budget, stream, tensors

SAMPLES = st.lists(
    st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n - 1))), min_size=1, max_size=40
).map(lambda sizes: [Sample([(row * 7 + i) % 250 + 1 for i in range(n)], at, row) for row, (n, at) in enumerate(sizes)])


@given(SAMPLES, st.integers(10, 200), st.integers(2, 80))
def test_every_row_is_packed_once_or_told(samples: list[Sample], budget: int, longest: int) -> None:
    try:
        packed = pack(samples, budget, longest)
    except ValueError:
        assert all(len(sample.tokens) > min(longest, budget) for sample in samples)
        return
    inside = [sample.row for batch in packed.batches for sample in batch]
    assert sorted(inside + packed.oversize) == [sample.row for sample in samples]
    assert all(len(batch) * max(len(s.tokens) for s in batch) <= budget for batch in packed.batches)
    assert 0 < packed.fill <= 1


@given(SAMPLES)
def test_a_batch_says_what_comes_next_and_what_counts(samples: list[Sample]) -> None:
    batch = tensors(samples)
    for row, sample in enumerate(samples):
        length = int(batch.lengths[row])
        assert batch.tokens[row, :length].tolist() == list(sample.tokens[:-1])
        assert batch.targets[row, :length].tolist() == list(sample.tokens[1:])
        counted = [int(batch.targets[row, i]) for i in range(batch.tokens.shape[1]) if batch.weights[row, i]]
        assert counted == list(sample.tokens[sample.answer_at :])


def test_an_epoch_holds_every_batch_in_an_order_of_its_own() -> None:
    packed = pack([Sample([1, 2, row + 3], 1, row) for row in range(20)], 6, 10)
    count = len(packed.batches)
    read = [batch_at(packed, 5, step).rows for step in range(2 * count)]
    assert sorted(chain.from_iterable(read[:count])) == sorted(chain.from_iterable(read[count:])) == list(range(20))
    assert read[:count] != read[count:]
    assert read[:count] != [batch_at(packed, 6, step).rows for step in range(count)]
    assert read[count + 3] == batch_at(packed, 5, count + 3).rows


@pytest.mark.parametrize("at", [0, 3])
def test_a_sample_has_a_prompt_and_an_answer(at: int) -> None:
    with pytest.raises(ValueError, match="a prompt and an answer"):
        Sample([1, 2, 3], at)


def test_the_budget_of_a_reply_is_measured() -> None:
    samples = [Sample([1] * (1 + n), 1) for n in [*range(1, 100), 1000]]
    assert reply_budget(samples) == 114  # 1.15 x 99
    assert reply_budget(samples, context=100) == 84
    assert reply_budget([Sample([1, 2], 1)]) == 64


@given(SAMPLES, st.integers(10, 200), st.integers(2, 80), st.integers(0, 3))
def test_a_stream_holds_every_row_whole_and_once(samples: list[Sample], budget: int, width: int, seed: int) -> None:
    try:
        packed = stream(samples, budget, width, seed)
    except ValueError:
        assert all(len(sample.tokens) > min(width, budget) for sample in samples)
        return
    lanes = list(chain.from_iterable(packed.batches))
    inside = list(chain.from_iterable(lane.rows for lane in lanes))
    assert sorted(inside + packed.oversize) == [sample.row for sample in samples]
    assert all(len(lane.tokens) <= min(width, budget) for lane in lanes)
    assert all(len(batch) * max(len(lane.tokens) for lane in batch) <= budget for batch in packed.batches)
    by_row = {sample.row: sample for sample in samples}
    batch = tensors(packed.batches[0])
    for number, lane in enumerate(packed.batches[0]):
        assert list(lane.tokens) == list(chain.from_iterable(by_row[row].tokens for row in lane.rows))
        counted = [int(batch.targets[number, i]) for i in range(batch.tokens.shape[1]) if batch.weights[number, i]]
        answers = (by_row[row].tokens[by_row[row].answer_at :] for row in lane.rows)
        assert counted == list(chain.from_iterable(answers))


def test_rows_meet_in_a_stream_as_its_seed_says() -> None:
    samples = [Sample([1, 2, row + 3], 1, row) for row in range(20)]
    one, again, other = (stream(samples, 24, 12, seed) for seed in (1, 1, 2))
    assert one == again != other
    assert batch_at(one, 0, 0).tokens.shape == (2, 11)
    assert batch_at(one, 0, 0).weights[0].tolist() == [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1]
