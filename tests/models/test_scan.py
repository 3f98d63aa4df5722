"""The chunked recurrence against the recurrence itself, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.rwkv7.scan import HEADS, wkv_chunked, wkv_step_


def inputs(batch: int, length: int, heads: int, size: int, dtype: torch.dtype) -> list[Tensor]:
    """r, log_w, k, v, a, b and the state, in the ranges that a model gives them."""
    generator = torch.Generator().manual_seed(length)
    shape = (batch, length, heads, size)
    r, k, v, decay, direction, rate = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(6))
    log_w = -0.6065 * torch.sigmoid(2 * decay)
    a = torch.nn.functional.normalize(direction, dim=-1)
    state = torch.randn(batch, heads, size, size, generator=generator, dtype=dtype)
    return [t.requires_grad_() for t in (r, log_w, k, v, -a, a * torch.sigmoid(rate), state)]


def plain(r: Tensor, log_w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """The definition, token after token."""
    read = []
    for t in range(r.shape[1]):
        removed = torch.einsum("bhvk,bhk,bhl->bhvl", s, a[:, t], b[:, t])
        s = s * log_w[:, t].exp().unsqueeze(-2) + removed + torch.einsum("bhv,bhk->bhvk", v[:, t], k[:, t])
        read.append(torch.einsum("bhvk,bhk->bhv", s, r[:, t]))
    return torch.stack(read, dim=1), s


@pytest.mark.parametrize(("length", "chunk"), [(1, 4), (4, 4), (7, 4), (33, 16), (64, 32)])
def test_values_and_gradients_agree_with_the_definition(length: int, chunk: int) -> None:
    given = inputs(2, length, 2, 8, torch.float64)
    found, expected = wkv_chunked(*given, chunk=chunk), plain(*given)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    weight = [torch.randn_like(part) for part in expected]
    gradients = [
        torch.autograd.grad(sum((part * w).sum() for part, w in zip(parts, weight, strict=True)), given)
        for parts in (found, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("heads", [1, HEADS, 3 * HEADS - 1])
def test_a_step_in_place_agrees_with_the_definition_however_many_heads(heads: int) -> None:
    r, log_w, k, v, a, b, state = (t.detach() for t in inputs(1, 1, heads, 8, torch.float64))
    y, after = plain(r, log_w, k, v, a, b, state)
    found = wkv_step_([state], *(t[:, 0] for t in (r, log_w.exp(), k, v, a, b)))
    torch.testing.assert_close(found, y[:, 0], atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(state, after, atol=1e-12, rtol=1e-12)


def test_the_fastest_decay_stays_exact_in_fp32() -> None:
    r, _, k, v, a, b, state = (t.detach() for t in inputs(1, 64, 1, 64, torch.float32))
    log_w = torch.full_like(r, -0.6065)
    torch.testing.assert_close(
        wkv_chunked(r, log_w, k, v, a, b, state), plain(r, log_w, k, v, a, b, state), atol=1e-3, rtol=1e-4
    )


def test_gradients_pass_the_numerical_check() -> None:
    given = inputs(1, 5, 1, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda *parts: wkv_chunked(*parts, chunk=2), given)
