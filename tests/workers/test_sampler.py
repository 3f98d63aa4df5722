"""The sampler against a slow reference that is written from the definitions, and against its own promises."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssmprov.settings import Settings
from workers.sampler import CANDIDATES, Draw, sample, share, uniform

GREEDY = Settings(temp=0.0)
NEVER = -math.inf
LARGE = 70_000


def reference(
    logits: Sequence[float],
    window: Sequence[int],
    chosen: Settings,
    *,
    slack: float = 0.0,
    banned: Sequence[int] = (),
    allowed: Sequence[bool] | None = None,
) -> dict[int, float]:
    """The probabilities of what may be drawn, filter by filter. `slack` moves the edges of top-p and min-p a little."""
    scores = {token: float(score) for token, score in enumerate(logits)}
    for token, count in Counter(window).items():
        score = scores[token]
        score = score / chosen.pen_rep if score > 0 else score * chosen.pen_rep
        scores[token] = score - chosen.pen_freq * count - chosen.pen_pres
    for token in scores:
        if token in banned or (allowed is not None and not allowed[token]):
            scores[token] = NEVER
    highest = max(scores.values())
    weights = {token: math.exp((score - highest) / chosen.temp) for token, score in scores.items()}
    ranked = sorted(weights, key=lambda token: (-weights[token], token))
    ranked = ranked[: chosen.top_k or len(ranked)]
    left = math.fsum(weights[token] for token in ranked)
    kept, before = [], 0.0
    for token in ranked:
        if before / left < chosen.top_p + slack or not kept:
            kept.append(token)
        before += weights[token]
    kept = [token for token in kept if weights[token] >= (chosen.min_p - slack) * weights[ranked[0]] and weights[token]]
    whole = math.fsum(weights[token] for token in kept)
    return {token: weights[token] / whole for token in kept}


def drawn(
    logits: NDArray[np.float32], window: Sequence[int], chosen: Settings, count: int, **options: object
) -> list[int]:
    """Tokens at the positions 0 to count - 1 of one seed."""
    draws = [Draw(settings=chosen, window=window, seed=7, position=position, **options) for position in range(count)]  # type: ignore[arg-type]
    return [token for draw in draws for token in sample(logits[None], [draw])]


def chi_square(tokens: Sequence[int], probabilities: dict[int, float]) -> None:
    """Fails where counts are as far from their expectation as one in about a million samples is."""
    counts = Counter(tokens)
    assert set(counts) <= set(probabilities)
    expected = {token: p * len(tokens) for token, p in probabilities.items() if p * len(tokens) >= 5}
    statistic = sum((counts[token] - n) ** 2 / n for token, n in expected.items())
    freedom = len(expected)
    assert statistic < freedom + 5 * math.sqrt(2 * freedom) + 20, (statistic, freedom)


quarters = st.integers(-24, 24).map(lambda n: n / 4)
chosen_settings = st.builds(
    Settings,
    temp=st.sampled_from([0.25, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    top_k=st.sampled_from([0, 1, 2, 3, 7, 8, 100]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    pen_freq=st.sampled_from([0.0, 0.25, -0.5, 1.0]),
    pen_pres=st.sampled_from([0.0, 0.5, -0.25]),
    pen_rep=st.sampled_from([1.0, 2.0, 0.5]),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(quarters | st.just(NEVER), min_size=1, max_size=12).filter(lambda xs: max(xs) > NEVER),
    st.data(),
    chosen_settings,
)
def test_every_filter_keeps_what_the_reference_keeps(
    logits: list[float], data: st.DataObject, chosen: Settings
) -> None:
    window = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=8))
    tokens = set(drawn(np.array(logits, np.float32), window, chosen, 200))
    assert tokens <= set(reference(logits, window, chosen, slack=1e-6))
    surely = reference(logits, window, chosen, slack=-1e-6)
    assert {token for token, p in surely.items() if p > 0.15} <= tokens


@pytest.mark.parametrize(
    "chosen",
    [
        Settings(),
        Settings(temp=0.5),
        Settings(temp=2.0, pen_pres=0.5),
        Settings(temp=0.5, pen_freq=0.5),
        Settings(temp=0.7, pen_rep=1.5),
        Settings(temp=0.7, pen_rep=1.5, pen_freq=0.25, pen_pres=0.25),
        Settings(top_k=4, top_p=0.8),
        Settings(temp=2.0, top_p=0.6),
        Settings(temp=2.0, min_p=0.5),
        Settings(temp=1.5, top_k=6, top_p=0.9, min_p=0.2, pen_rep=1.2, pen_freq=0.1, pen_pres=0.1),
    ],
)
def test_frequencies_follow_the_reference(chosen: Settings) -> None:
    logits = np.array([2.0, -1.0, 1.5, 0.0, 0.5, -3.0, 1.0, 1.0, -0.5, 0.25], np.float32)
    window = [0, 0, 0, 2, 1, 4, 4]
    chi_square(drawn(logits, window, chosen, 4000), reference(logits, window, chosen))


def test_penalties_count_the_window() -> None:
    logits = np.array([3.0, 2.0, -1.0, -2.0], np.float32)
    assert sample(logits[None], [Draw(settings=Settings(temp=0, pen_freq=0.6), window=[0, 0], seed=0, position=0)]) == [
        1
    ]
    assert sample(logits[None], [Draw(settings=Settings(temp=0, pen_freq=0.6), window=[0], seed=0, position=0)]) == [0]
    assert sample(logits[None], [Draw(settings=Settings(temp=0, pen_pres=0.6), window=[0, 0], seed=0, position=0)]) == [
        0
    ]
    assert sample(logits[None], [Draw(settings=Settings(temp=0, pen_rep=2), window=[0], seed=0, position=0)]) == [1]
    assert sample(logits[None, 2:], [Draw(settings=Settings(temp=0, pen_rep=3), window=[0], seed=0, position=0)]) == [
        1
    ]  # negative: multiplied
    assert sample(
        logits[None],
        [Draw(settings=Settings(temp=0, pen_rep=2, pen_freq=5, pen_pres=5), window=[], seed=0, position=0)],
    ) == [0]


def test_the_repeat_penalty_comes_before_the_others() -> None:
    logits = np.array([4.0, 1.2], np.float32)
    # 4 / 2 - 1 = 1.0 < 1.2; the other way round it were (4 - 1) / 2 = 1.5
    assert sample(
        logits[None], [Draw(settings=Settings(temp=0, pen_rep=2, pen_pres=1), window=[0], seed=0, position=0)]
    ) == [1]


@given(st.lists(quarters | st.just(NEVER), min_size=1, max_size=12))
def test_greedy_takes_the_highest_and_of_equals_the_first(logits: list[float]) -> None:
    row = np.array(logits, np.float32)[None]
    first = logits.index(max(logits))
    for chosen in (GREEDY, Settings(temp=3.0, top_k=1), Settings(temp=0, top_k=5, top_p=0.1, min_p=0.5)):
        assert sample(row, [Draw(settings=chosen, window=[], seed=5, position=9)]) == [first]


def test_the_edges_of_the_filters() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0], np.float32)
    everything = {0, 1, 2, 3}
    for chosen, kept in [
        (Settings(top_p=0.0), {1}),
        (Settings(min_p=1.0), {1, 3}),
        (Settings(top_k=1), {1}),
        (Settings(top_k=2), {1, 3}),
        (Settings(top_k=4), everything),
        (Settings(top_k=5), everything),
        (Settings(top_k=1_000_000, top_p=1.0, min_p=0.0), everything),
        (Settings(), everything),
        (Settings(top_k=3, top_p=1e-9), {1}),
        (Settings(temp=1e-300), {1, 3}),
        (Settings(temp=5e-324, min_p=0.1), {1, 3}),
    ]:
        assert set(drawn(logits, [], chosen, 400)) == kept, chosen


def test_of_equal_tokens_top_k_keeps_the_first() -> None:
    for count, vocabulary in [(3, 10), (100, 5000), (CANDIDATES + 10, 5000)]:
        tokens = drawn(np.zeros(vocabulary, np.float32), [], Settings(top_k=count), 300)
        assert max(tokens) < count
        assert len(set(tokens)) > count // 5


def test_what_is_banned_or_not_allowed_is_never_drawn() -> None:
    logits = np.array([1.0, 3.0, 2.0, 3.0], np.float32)
    allowed = np.array([True, False, True, True])
    for chosen in (Settings(), GREEDY, Settings(top_k=2), Settings(top_p=0.9), Settings(min_p=0.01)):
        assert 1 not in drawn(logits, [], chosen, 100, banned=[1])
        assert set(drawn(logits, [], chosen, 100, banned=[3], allowed=allowed)) <= {0, 2}
        assert set(drawn(logits, [], chosen, 20, banned=[0, 1, 3])) == {2}


def test_where_nothing_is_left_a_refused_token_comes_without_a_warning() -> None:
    logits = np.array([1.0, 3.0], np.float32)
    for chosen in (Settings(), GREEDY, Settings(top_k=2, top_p=0.5)):
        (token,) = sample(logits[None], [Draw(settings=chosen, window=[0], seed=1, position=1, banned=[0, 1])])
        assert token in (0, 1)


def test_minus_infinity_is_never_drawn() -> None:
    logits = np.array([NEVER, 0.0, NEVER, 0.0, NEVER], np.float32)
    for chosen in (Settings(), Settings(top_k=4), Settings(top_p=0.999), Settings(pen_rep=2.0)):
        assert set(drawn(logits, [0, 1], chosen, 200)) == {1, 3}


def test_the_logits_are_left_as_they_are() -> None:
    logits = np.array([[1.0, 3.0, 2.0]], np.float32)
    sample(logits, [Draw(settings=Settings(pen_rep=2.0, top_k=2), window=[0, 1], seed=1, position=1, banned=[2])])
    assert logits.tolist() == [[1.0, 3.0, 2.0]]


# -- the vocabulary of a real model


def steep(share_of_first: float, first: int) -> NDArray[np.float32]:
    """Logits of a large vocabulary whose `first` likeliest tokens, spread over the ids, hold that share, flatly."""
    weights = np.full(LARGE, (1 - share_of_first) / (LARGE - first))
    likely = np.random.default_rng(3).permutation(LARGE)[:first]
    weights[likely] = share_of_first / first * np.linspace(1.2, 0.8, first)
    return np.log(weights).astype(np.float32)


@pytest.mark.parametrize(
    ("logits", "chosen"),
    [
        (steep(0.9, 50), Settings(top_p=0.5)),
        (steep(0.6, 3000), Settings(top_p=0.5)),
        (steep(0.3, 3000), Settings(top_p=0.2)),
        (steep(0.5, CANDIDATES), Settings(top_k=1500, top_p=0.4)),
        (steep(0.5, CANDIDATES), Settings(top_k=1500, top_p=0.4, min_p=0.5)),
        (steep(0.6, 3000), Settings(top_k=CANDIDATES)),
        (steep(0.6, 3000), Settings(top_k=CANDIDATES + 1, top_p=0.7)),
        (steep(0.6, 3000), Settings(min_p=0.5)),
        (steep(0.6, 3000), Settings(min_p=0.9, top_p=0.99)),
        (steep(0.6, 3000), Settings(top_k=LARGE, top_p=0.3)),
        (steep(0.6, 3000), Settings(top_k=LARGE + 1, min_p=0.7, temp=0.8)),
        (steep(0.5, 5), Settings(temp=2.0)),
    ],
)
def test_a_large_vocabulary_is_filtered_as_a_small_one(logits: NDArray[np.float32], chosen: Settings) -> None:
    most = reference(logits.tolist(), [], chosen, slack=1e-6)
    tokens = drawn(logits, [], chosen, 60)
    assert set(tokens) <= set(most)
    ranked = sorted(most, key=lambda token: (-most[token], token))
    half = ranked[len(ranked) // 2 :]
    share_of_half = sum(most[token] for token in half)
    found = len(set(half) & set(tokens)) if len(half) > 1000 else sum(token in set(half) for token in tokens)
    assert found >= len(tokens) * share_of_half / 3, "the less likely half of what is kept is drawn too"


# -- draws


@given(st.integers(0, 2**63 - 1), st.integers(0, 50))
def test_a_draw_is_addressed_by_its_position(seed: int, position: int) -> None:
    sequence = np.random.Philox(key=seed).random_raw(4 * (position + 1))  # four words a block, the first is used
    assert uniform(seed, position, 0) == (int(sequence[4 * position]) >> 11) / 2**53
    assert 0 <= uniform(seed, position, 0) < 1


def test_seeds_positions_and_retries_all_tell_draws_apart() -> None:
    points = {uniform(seed, position, retry) for seed in range(5) for position in range(40) for retry in range(3)}
    assert len(points) == 5 * 40 * 3
    assert uniform(2**63 - 1, 2**40, 0) == uniform(2**63 - 1, 2**40, 0)


def test_draws_are_uniform() -> None:
    points = [uniform(11, position, 0) for position in range(4000)]
    chi_square([int(point * 20) for point in points], dict.fromkeys(range(20), 0.05))


@given(st.integers(1, 6), st.data())
def test_the_rows_of_a_batch_do_not_see_each_other(rows: int, data: st.DataObject) -> None:
    logits = np.random.default_rng(rows).normal(0, 2, (rows, 9)).astype(np.float32)
    draws = [
        Draw(
            settings=data.draw(chosen_settings),
            window=data.draw(st.lists(st.integers(0, 8), max_size=5)),
            seed=data.draw(st.integers(0, 2**63 - 1)),
            position=data.draw(st.integers(0, 2**40)),
            retry=data.draw(st.integers(0, 3)),
            banned=data.draw(st.lists(st.integers(0, 8), max_size=3)),
            allowed=data.draw(st.none() | st.just(np.arange(9) % 2 == 0)),
        )
        for _ in range(rows)
    ]
    together = sample(logits, draws)
    assert together == [sample(logits[row : row + 1], [draw])[0] for row, draw in enumerate(draws)]
    assert together == sample(logits, draws)


@given(st.lists(quarters | st.just(NEVER), min_size=2, max_size=9).filter(lambda xs: max(xs) > NEVER), st.data())
def test_a_share_is_the_softmax_of_the_members(logits: list[float], data: st.DataObject) -> None:
    members = np.array(data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits))))
    probabilities = reference(logits, [], Settings())
    expected = sum(probabilities.get(int(token), 0.0) for token in np.flatnonzero(members))
    assert share(np.array(logits, np.float32), members) == pytest.approx(expected, abs=1e-6)
