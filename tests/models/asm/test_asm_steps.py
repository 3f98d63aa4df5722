"""Reading in slices: whatever the slices, rows and padding, each context is read as if it were alone and whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from asm_cases import by_recurrence, inputs, tiny_layer, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.asm import AddressedStateAttention, State
from models.asm.layer import AttentionLayer

SCANS = ("exact", "chunked:7")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"use_alibi_write": False},
    {"use_content_read": False},
    {"use_slotspace_refine": False},
    {"slotspace_signed_weights": False},
    {"normalize_k": True, "write_temperature": 0.2},
    {"use_rope_keys": False, "use_rope_slotspace": False},
    {"learn_alibi_strength": False, "alibi_strength_init": 2.0},
)


def in_slices(layer: AttentionLayer, x: Tensor, cuts: list[int]) -> tuple[Tensor, State]:
    """y of x [B,T,C] read from cut to cut, and the last state."""
    state, found = layer.new_state(len(x)), []
    for first, stop in pairwise([0, *cuts, x.shape[1]]):
        y, state = layer(x[:, first:stop], state)
        found.append(y)
    return torch.cat(found, dim=1), state


def assert_same(one: State, other: State) -> None:
    torch.testing.assert_close(one.t, other.t)
    for (name, mine), (_, theirs) in zip(one.memory.items(), other.memory.items(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
@torch.no_grad()
def test_step_by_step_equals_one_slice(scan: str, options: dict[str, Any]) -> None:
    layer = tiny_layer(scan=scan, **options)
    x = inputs(2, 40)
    whole, after = layer(x)
    stepped, stepped_after = in_slices(layer, x, list(range(1, 40)))
    torch.testing.assert_close(stepped, whole, **TOLERANCE)
    assert_same(stepped_after, after)


@settings(max_examples=12, deadline=None)
@given(cuts=st.sets(st.integers(1, 149), max_size=8), scan=st.sampled_from(SCANS))
@torch.no_grad()
def test_slices_of_any_size_equal_one(cuts: set[int], scan: str) -> None:
    layer = tiny_layer(scan=scan)
    x = inputs(1, 150)
    whole, after = layer(x)
    sliced, sliced_after = in_slices(layer, x, sorted(cuts))
    torch.testing.assert_close(sliced, whole, **TOLERANCE)
    assert_same(sliced_after, after)


@pytest.mark.parametrize("scale", [1.0, 40.0], ids=["plain", "steep"])
@torch.no_grad()
def test_the_exact_scan_is_the_definition(scale: float) -> None:
    """Over several segments, and with logits that rise by hundreds within one."""
    layer = tiny_layer()
    assert isinstance(layer, AddressedStateAttention)
    layer.Wk_write.weight.mul_(scale)
    x = inputs(2, 150)
    y, _ = layer(x)
    torch.testing.assert_close(y.double(), by_recurrence(layer, x), atol=2e-5 * scale**0.5, rtol=1e-5)


@torch.no_grad()
def test_the_cyclic_mode_turns_positions_round_and_keeps_the_rest() -> None:
    layer = tiny_layer(pos_mode="cyclic", max_seq_len=16)
    assert isinstance(layer, AddressedStateAttention)
    x = inputs(1, 50)
    y, state = layer(x)
    assert state.t.tolist() == [50]
    torch.testing.assert_close(y.double(), by_recurrence(layer, x), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("scan", ["exact", "chunked:8"])
@torch.no_grad()
def test_a_context_of_a_billion_tokens_loses_no_precision(scan: str) -> None:
    """Positions enter by their place in the round alone: not one bit moves."""
    layer = tiny_layer(pos_mode="cyclic", max_seq_len=16, scan=scan)
    x = inputs(1, 30)
    _, early = layer(x)
    late = early.clone()
    late.t += 16 * 10**8
    (one, _), (other, after) = layer(x, early), layer(x, late)
    assert torch.equal(one, other)
    assert after.t.tolist() == [60 + 16 * 10**8]


@pytest.mark.parametrize("scan", SCANS)
@torch.no_grad()
def test_rows_of_different_lengths_and_positions_are_read_as_if_alone(scan: str) -> None:
    model = tiny_model("online", scan=scan)
    tokens = torch.randint(31, (3, 90), generator=torch.Generator().manual_seed(3))
    reads = torch.tensor([[0, 1, 0], [5, 70, 1], [1, 1, 0], [13, 0, 76], [1, 18, 2]])  # tokens of each row in each call
    state, found = model.new_state(3), [[], [], []]
    for lengths in reads:
        width = int(lengths.max())
        starts = state.t.tolist()
        padded = torch.zeros(3, width, dtype=torch.int64)
        for row, length in enumerate(lengths.tolist()):
            padded[row, :length] = tokens[row, starts[row] : starts[row] + length]
        logits, state = model(padded, state, lengths=lengths)
        for row, length in enumerate(lengths.tolist()):
            found[row].append(logits[row, :length])
    for row, total in enumerate(reads.sum(dim=0).tolist()):
        alone, after = model(tokens[row : row + 1, :total])
        torch.testing.assert_close(torch.cat(found[row]), alone[0], atol=5e-5, rtol=1e-5)
        assert_same(state.pick([row]), after)


@pytest.mark.parametrize("scan", SCANS)
@torch.no_grad()
def test_a_mask_says_what_lengths_say_and_last_logits_are_each_rows_last(scan: str) -> None:
    model = tiny_model(scan=scan)
    tokens = torch.randint(31, (2, 12), generator=torch.Generator().manual_seed(4))
    lengths = torch.tensor([12, 5])
    by_lengths, state = model(tokens, lengths=lengths)
    by_mask, other = model(tokens, attention_mask=torch.arange(12) < lengths.unsqueeze(1))
    last, _ = model(tokens, lengths=lengths, last_logits=True)
    assert torch.equal(by_lengths, by_mask)
    assert_same(state, other)
    torch.testing.assert_close(last, torch.stack((by_lengths[0, 11], by_lengths[1, 4])))


@pytest.mark.parametrize("scan", SCANS)
@torch.no_grad()
def test_contexts_can_be_picked_and_put(scan: str) -> None:
    model = tiny_model("online", scan=scan)
    tokens = torch.randint(31, (3, 20), generator=torch.Generator().manual_seed(5))
    _, state = model(tokens, lengths=torch.tensor([20, 3, 9]))
    before = state.clone()
    forks = state.pick([2, 0, 2])
    step = torch.tensor([[7], [8], [7]])
    logits, forks = model(step, forks)
    torch.testing.assert_close(logits[0], logits[2])
    assert forks.t.tolist() == [10, 21, 10]
    assert_same(state, before)
    state.put([1], forks.pick([1]))
    assert state.t.tolist() == [20, 21, 9]
    assert_same(state.pick([1]), forks.pick([1]))
    assert_same(state.pick([0, 2]), before.pick([0, 2]))


@pytest.mark.parametrize("scan", SCANS)
@torch.no_grad()
def test_a_call_changes_neither_its_state_nor_its_input(scan: str) -> None:
    layer = tiny_layer(scan=scan)
    x = inputs(1, 9)
    _, state = layer(x)
    kept, kept_x = state.clone(), x.clone()
    layer(x, state)
    assert_same(state, kept)
    assert torch.equal(x, kept_x)
