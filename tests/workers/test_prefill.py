"""How much of the waiting prompts a step reads: within the bound on gaps, at least a little, and fairly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from batch_toys import Gated, OpenBench, benches
from hypothesis import given
from hypothesis import strategies as st

from ssmprov import ops, wire
from workers.job import Job
from workers.prefill import AIM, FEWEST, RELIEF, Pace, portions

GAP_S = 0.1


@pytest.fixture
def open_bench() -> Iterator[OpenBench]:
    with benches() as make:
        yield make


def job(client: bytes = b"one") -> Job:
    return Job(request=wire.Request(wire.new_id(), "turn", client=client), args=ops.Turn(), deadline=0.0, arrived=0.0)


@given(st.floats(0.0, 0.08), st.floats(1e-5, 5e-3))
def test_a_step_beside_writers_comes_to_take_the_bound(fixed_s: float, token_s: float) -> None:
    pace = Pace(4096, GAP_S)
    for _ in range(100):
        tokens = pace.tokens(writing=True)
        pace.took(tokens, fixed_s + token_s * tokens)
    taken = fixed_s + token_s * pace.tokens(writing=True)
    assert taken <= AIM * GAP_S or pace.tokens(writing=True) == FEWEST
    assert taken > 0.9 * AIM * GAP_S - 5 * token_s or pace.tokens(writing=True) == 4096


def test_where_the_writers_alone_take_longer_a_few_tokens_are_still_read() -> None:
    pace = Pace(128, GAP_S)
    for _ in range(20):
        pace.took(pace.tokens(writing=True), 0.3)
    assert pace.tokens(writing=True) == FEWEST
    assert pace.tokens(writing=False) == 128


def test_a_short_rest_of_a_prompt_changes_nothing_unless_it_took_too_long() -> None:
    pace = Pace(128, GAP_S)
    while pace.tokens(writing=True) < 64:
        pace.took(pace.tokens(writing=True), 0.04)
    pace.took(3, 0.07)
    assert pace.tokens(writing=True) >= 64
    pace.took(60, 0.2)
    assert pace.tokens(writing=True) == 30


def test_a_model_of_small_slices_is_never_given_larger_ones() -> None:
    pace = Pace(2, GAP_S)
    pace.took(2, 0.001)
    assert (pace.tokens(writing=True), pace.tokens(writing=False)) == (2, 2)


@pytest.mark.parametrize("tokens", [FEWEST, 2 * FEWEST])
def test_a_client_with_many_jobs_gets_no_more_than_one_with_a_single_job(tokens: int) -> None:
    jobs = [job(b"many") for _ in range(6)] + [job(b"one")]
    read: Counter[bytes] = Counter()
    for step in range(1, 31):
        for chosen, count in portions(jobs, tokens, lambda _: 1000, step):
            read[chosen.request.client] += count
            chosen.read_at = step
    assert read[b"many"] == read[b"one"]


def test_short_prompts_are_read_side_by_side() -> None:
    jobs = [job() for _ in range(8)]
    assert portions(jobs, 128, lambda _: 10, 1) == [(one, 10) for one in jobs]


def test_prompts_of_one_client_are_ready_one_after_the_other() -> None:
    left = {job(): 256 for _ in range(5)}
    order = list(left)
    ready: list[Job] = []
    for step in range(1, 11):
        for one, count in portions(list(left), 128, left.__getitem__, step):
            one.read_at = step
            left[one] -= count
            if not left[one]:
                ready.append(one)
                del left[one]
    assert ready == order


def test_of_one_clients_prompts_the_shortest_comes_first_whoever_came_before() -> None:
    long, short, shorter = (job() for _ in range(3))
    left = {long: 1000, short: 100, shorter: 40}
    assert portions(list(left), 128, left.__getitem__, 1) == [(shorter, 40), (short, 88)]


def test_a_long_prompt_is_read_on_beside_short_ones_that_keep_coming() -> None:
    long = job()
    read = 0
    for step in range(1, 41):
        new = job()
        new.read_at = step - 1
        for one, count in portions([long, new], 128, lambda one: 4000 if one is long else 128, step):
            if one is long:
                one.read_at, read = step, read + count
    assert read == 128 * (40 // (2 * RELIEF + 1))


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(1, 300)), max_size=9),
    st.integers(1, 200),
)
def test_every_prompt_is_read_to_its_end_within_the_budget(asked: list[tuple[bytes, int]], tokens: int) -> None:
    left = {job(client): length for client, length in asked}
    waited = dict.fromkeys(left, 0)
    for step in range(1, 4000):
        if not left:
            break
        found = portions(list(left), tokens, left.__getitem__, step)
        assert sum(count for _, count in found) <= tokens
        assert len({id(one) for one, _ in found}) == len(found)
        for one in left:
            waited[one] += 1
        for one, count in found:
            assert 1 <= count <= left[one]
            one.read_at, waited[one] = step, 0
            left[one] -= count
            if not left[one]:
                del left[one]
        assert all(waited[one] <= RELIEF * (len(asked) + 1) * 2 for one in left), "nobody is starved"
    assert not left


@pytest.mark.parametrize(("gap_s", "sizes"), [(1e-9, [FEWEST] * 5), (60.0, [FEWEST, 32, 64, 64, 64])])
def test_slices_follow_the_bound_while_somebody_writes_and_are_whole_when_nobody_does(
    open_bench: OpenBench, gap_s: float, sizes: list[int]
) -> None:
    runtime = Gated()
    bench = open_bench(runtime, slice_tokens=64, gap_s=gap_s)
    writing = bench.submit("go", tokens=12)
    runtime.step()
    bench.submit("x" * 600)
    beside = [runtime.step() for _ in range(8)]
    runtime.run_on()
    bench.finished(2)
    after = [runtime.entered.get() for _ in range(runtime.entered.qsize())]
    long = [len(feed.tokens) for feeds in beside for feed in feeds if feed.slot != writing.slot]
    assert long[:5] == sizes
    assert max(len(feed.tokens) for feeds in after for feed in feeds) == 64


def test_new_prompts_do_not_pass_one_that_waits(open_bench: OpenBench) -> None:
    """Every step reads one slice, and each prompt of the other client is one."""
    runtime = Gated(slots=2)
    bench = open_bench(runtime, slice_tokens=FEWEST)
    waiting = bench.submit("x" * 200, tokens=0, client=b"one")
    for letter in "abcdefgh":
        bench.submit(letter * FEWEST, tokens=0, client=b"many")
    for _ in range(3):
        runtime.step()
    steps = [runtime.step() for _ in range(6)]
    assert sum(feed.slot == waiting.slot for feeds in steps for feed in feeds) == 3
    runtime.run_on()
    bench.finished(9)


@pytest.mark.parametrize("most", [1, 16, 4096])
def test_nobody_writing_means_whole_slices(most: int) -> None:
    assert Pace(most, 1e-6).tokens(writing=False) == most
