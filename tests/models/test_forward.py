"""Batches, chunks and padding change nothing that a context can notice."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models import rwkv7
from models.rwkv7 import Config, State, Weights
from models.rwkv7.layers import Dtype
from models.rwkv7.products import Large


def random_tokens(config: Config, batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(config.vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


@cache
def small_weights() -> Weights:
    """Not a fixture, for hypothesis prints the arguments of a failing test."""
    return rwkv7.random_weights(
        Config(layers=2, channels=64, head_size=32, vocabulary=50, ffn=96, rank_w=4, rank_a=4, rank_v=4, rank_g=4),
        seed=6,
    )


def stepwise(weights: Weights, tokens: Tensor, state: State) -> Tensor:
    """Logits after the last token, read one at a time."""
    logits = torch.empty(0)
    for token in tokens.split(1, dim=1):
        logits, state = rwkv7.forward(weights, token, None, state)
    return logits


@pytest.mark.parametrize("length", [2, 15, 16, 17, 32, 70])
def test_chunks_agree_with_single_steps(weights: Weights, length: int) -> None:
    tokens = random_tokens(weights.config, 2, length)
    one, other = (rwkv7.new_state(weights.config, 2) for _ in range(2))
    logits, _ = rwkv7.forward(weights, tokens, None, one)
    torch.testing.assert_close(logits, stepwise(weights, tokens, other), atol=1e-4, rtol=0)
    torch.testing.assert_close(one.wkv, other.wkv, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(one.shifts, other.shifts, atol=1e-4, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 3))
def test_ragged_rows_agree_with_each_row_alone(lengths: list[int], padding: int) -> None:
    weights = small_weights()
    tokens = random_tokens(weights.config, len(lengths), max(lengths) + padding, seed=sum(lengths))
    state = rwkv7.new_state(weights.config, len(lengths))
    logits, _ = rwkv7.forward(weights, tokens, torch.tensor(lengths), state)
    for row, length in enumerate(lengths):
        alone = rwkv7.new_state(weights.config, 1)
        expected, _ = rwkv7.forward(weights, tokens[row : row + 1, :length], None, alone)
        torch.testing.assert_close(logits[row], expected[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(state.wkv[:, row], alone.wkv[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(state.shifts[:, :, row], alone.shifts[:, :, 0], atol=1e-5, rtol=0)


def test_what_stands_in_the_padding_does_not_matter(weights: Weights) -> None:
    tokens, lengths = random_tokens(weights.config, 2, 20), torch.tensor([20, 7])
    other = tokens.clone()
    other[1, 7:] = 0
    found = [rwkv7.forward(weights, t, lengths, rwkv7.new_state(weights.config, 2)) for t in (tokens, other)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1].wkv, found[1][1].wkv)


def test_decode_in_a_batch_agrees_with_decode_alone(weights: Weights) -> None:
    batch = 6
    prompt = random_tokens(weights.config, batch, 9)
    together = rwkv7.new_state(weights.config, batch)
    logits, _ = rwkv7.forward(weights, prompt, None, together)
    alone = [rwkv7.new_state(weights.config, 1) for _ in range(batch)]
    last = [rwkv7.forward(weights, prompt[i : i + 1], None, alone[i])[0] for i in range(batch)]
    for _ in range(24):
        chosen = logits.argmax(dim=-1)
        assert [int(row.argmax()) for row in last] == chosen.tolist()
        logits, _ = rwkv7.forward(weights, chosen.unsqueeze(1), None, together)
        last = [rwkv7.forward(weights, chosen[i].view(1, 1), None, alone[i])[0] for i in range(batch)]
        torch.testing.assert_close(logits, torch.cat(last), atol=3e-5, rtol=0)


@pytest.mark.parametrize("lengths", [None, [9, 4, 1, 6]])
@pytest.mark.parametrize("contexts", [[0, 1, 2, 3], [3, 4, 5, 6], [1, 2, 4, 6], [6, 0, 3, 2]])
def test_contexts_anywhere_in_a_state_read_alike_and_leave_the_others_alone(
    weights: Weights, contexts: list[int], lengths: list[int] | None
) -> None:
    state = rwkv7.new_state(weights.config, 7)
    rwkv7.forward(weights, random_tokens(weights.config, 7, 5), None, state)
    before, alone = state.clone(), state.pick(contexts)
    ragged = None if lengths is None else torch.tensor(lengths)
    pieces = (random_tokens(weights.config, 4, 9), ragged), (random_tokens(weights.config, 4, 1), None)
    for tokens, real in pieces:
        found, _ = rwkv7.forward(weights, tokens, real, state, contexts)
        expected, _ = rwkv7.forward(weights, tokens, real, alone)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(state.pick(contexts).wkv, alone.wkv, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state.pick(contexts).shifts, alone.shifts, atol=1e-5, rtol=0)
    others = [context for context in range(7) if context not in contexts]
    assert torch.equal(state.pick(others).wkv, before.pick(others).wkv)
    assert torch.equal(state.pick(others).shifts, before.pick(others).shifts)


def test_forward_changes_the_given_state_and_returns_it(weights: Weights) -> None:
    state = rwkv7.new_state(weights.config, 1)
    for length in (4, 1):
        before = state.clone()
        _, returned = rwkv7.forward(weights, random_tokens(weights.config, 1, length), None, state)
        assert returned is state
        assert not torch.equal(before.wkv, state.wkv)


def test_a_picked_row_is_a_fork_that_goes_its_own_way(weights: Weights) -> None:
    state = rwkv7.new_state(weights.config, 2)
    rwkv7.forward(weights, random_tokens(weights.config, 2, 5), None, state)
    forks = state.pick([1, 1, 0])
    assert forks.batch == 3
    assert torch.equal(forks.wkv[:, 0], state.wkv[:, 1])
    rwkv7.forward(weights, random_tokens(weights.config, 3, 3), None, forks)
    assert not torch.equal(forks.wkv[:, 0], forks.wkv[:, 1])


@pytest.mark.parametrize("lengths", [[0, 3], [4, 2]])
def test_lengths_outside_the_batch_are_refused(weights: Weights, lengths: list[int]) -> None:
    state = rwkv7.new_state(weights.config, 2)
    with pytest.raises(ValueError, match=r"lengths must lie in 1\.\.3"):
        rwkv7.forward(weights, random_tokens(weights.config, 2, 3), torch.tensor(lengths), state)


@pytest.mark.parametrize(
    ("options", "bound"),
    [({"dtype": "bf16"}, 0.05), ({"dtype": "fp16"}, 0.01), ({"quantize": "int8"}, 0.2)],
    ids=["bf16", "fp16", "int8"],
)
def test_coarser_numbers_stay_near(config: Config, weights: Weights, options: dict[str, str], bound: float) -> None:
    coarse = rwkv7.random_weights(config, seed=5, **options)  # type: ignore[arg-type]
    tokens = random_tokens(config, 3, 40)
    states = [rwkv7.new_state(config, 3) for _ in range(2)]
    for piece in tokens.split((30, 1, 1, 8), dim=1):
        expected, found = (rwkv7.forward(w, piece, None, s)[0] for w, s in zip((weights, coarse), states, strict=True))
        assert found.dtype == torch.float32
        assert 0 < float((found - expected).norm() / expected.norm()) < bound


@pytest.mark.parametrize("lengths", [None, [3, 20]])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nothing_of_a_forward_is_made_on_another_device(
    config: Config, dtype: Dtype, lengths: list[int] | None
) -> None:
    """On the device without memory, which takes no numbers of any other."""
    tensors = rwkv7.random_tensors(config, seed=5)
    weights = rwkv7.assemble(tensors, dtype=dtype, device="meta", inference=True)
    state = rwkv7.new_state(config, 2, "meta")
    ragged = None if lengths is None else torch.tensor(lengths)
    for tokens, real in ((random_tokens(config, 2, 20), ragged), (random_tokens(config, 2, 1), None)):
        logits, _ = rwkv7.forward(weights, tokens, real, state)
        assert (logits.shape, logits.dtype, logits.device.type) == ((2, config.vocabulary), torch.float32, "meta")


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-4), ("bf16", 0.1)])
def test_large_matrices_have_forms_of_their_own_and_say_the_same(dtype: Dtype, bound: float) -> None:
    """Against the products of training, which have none."""
    config = Config(
        layers=2, channels=512, head_size=64, vocabulary=257, ffn=1024, rank_w=8, rank_a=8, rank_v=8, rank_g=8
    )
    tensors = rwkv7.random_tensors(config, seed=7)
    weights = [rwkv7.assemble(tensors, dtype=dtype, inference=inference) for inference in (True, False)]
    assert dtype != "fp32" or isinstance(weights[0].blocks[0].channel.key, Large)
    states = [rwkv7.new_state(config, 5) for _ in range(2)]
    for tokens in random_tokens(config, 5, 22).split((20, 1, 1), dim=1):
        found, expected = (rwkv7.forward(w, tokens, None, s)[0] for w, s in zip(weights, states, strict=True))
        assert float((found - expected).abs().max() / expected.std()) <= bound


@pytest.mark.parametrize("rows", [1, 2, 3, 12, 13, 32, 33])
def test_a_large_matrix_takes_any_number_of_rows(rows: int) -> None:
    weight, x = torch.randn(192, 100), torch.randn(rows, 100)
    found = Large(weight)(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found, x @ weight.t(), atol=1e-4, rtol=0)
