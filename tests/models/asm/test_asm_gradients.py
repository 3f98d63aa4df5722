"""Gradients: numerically checked, finite, and the same whether a text is read at once or in windows."""

from __future__ import annotations

import pytest
import torch
from asm_cases import inputs, tiny_layer, tiny_model
from torch import Tensor

from models.asm import AttentionConfig, new_state
from models.asm import scan as scans
from models.asm.positions import span_of
from models.asm.scan import refine_scan, write_scan
from models.asm.state import Memory

SIZES = AttentionConfig(embed_dim=2, num_heads=1, num_slots=2, slotspace_dim=2)


def started(config: AttentionConfig) -> Memory:
    """A memory that has read something, in float64."""
    generator = torch.Generator().manual_seed(2)
    memory = new_state(config, 2, dtype=torch.float64).memory.layer(0)
    return memory.map(lambda x: torch.rand(x.shape, generator=generator, dtype=torch.float64) + 0.5)


@pytest.mark.parametrize("scan", ["exact", "chunked:2"])
@pytest.mark.parametrize("lengths", [None, [5, 3]], ids=["whole", "ragged"])
def test_gradients_of_the_write_scan_pass_the_numerical_check(
    monkeypatch: pytest.MonkeyPatch, scan: str, lengths: list[int] | None
) -> None:
    monkeypatch.setattr(scans, "SEGMENT", 2)  # several segments in five tokens
    config = AttentionConfig(embed_dim=2, num_heads=1, num_slots=2, scan=scan)
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    old = started(config)
    span = span_of(
        config, torch.tensor([3, 3]), 5, torch.float64, lengths=None if lengths is None else torch.tensor(lengths)
    )

    def through(
        logits: Tensor, v: Tensor, decay: Tensor, q: Tensor, weights: Tensor, den: Tensor, num: Tensor, m: Tensor
    ) -> tuple[Tensor, Tensor]:
        memory = Memory(m, den, num, old.S, old.Z, old.m0, old.den0, old.num0)
        slots, _ = write_scan(logits, v, decay, memory, span, config.chunk)
        return slots.dot(q), slots.mix(weights)

    given = (random(2, 1, 5, 2), random(2, 1, 5, 2), random(1), random(2, 1, 5, 2), random(2, 1, 5, 2))
    carried = (old.den.requires_grad_(), old.num.requires_grad_(), old.m.requires_grad_())
    assert torch.autograd.gradcheck(through, (*given, *carried))


def test_gradients_of_the_refinement_pass_the_numerical_check() -> None:
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.rand(2, 1, 5, 2, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(3))
    old = started(SIZES)
    given = (q, k, v, old.S.requires_grad_(), old.Z.requires_grad_())

    def through(q: Tensor, k: Tensor, v: Tensor, s: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        memory = Memory(old.m, old.den, old.num, s, z, old.m0, old.den0, old.num0)
        found, memory = refine_scan(q, k, v, memory, 2, None)
        return found, memory.S, memory.Z

    assert torch.autograd.gradcheck(through, given)


@pytest.mark.parametrize("scan", ["exact", "chunked:8"])
def test_windows_that_keep_their_state_have_the_gradients_of_the_whole(scan: str) -> None:
    layer = tiny_layer(scan=scan).double()
    x = inputs(2, 100).double()
    whole, _ = layer(x)
    expected = torch.autograd.grad(whole.square().sum(), list(layer.parameters()))
    state, found = None, []
    for part in x.split(23, dim=1):
        y, state = layer(part, state)
        found.append(y)
    gradients = torch.autograd.grad(torch.cat(found, dim=1).square().sum(), list(layer.parameters()))
    torch.testing.assert_close(gradients, expected, atol=1e-9, rtol=1e-9)


def test_a_detached_state_ends_the_history() -> None:
    layer = tiny_layer()
    _, state = layer(inputs(1, 5))
    assert state.memory.num.requires_grad
    assert not any(tensor.requires_grad for _, tensor in state.detach().memory.items())


@pytest.mark.parametrize("scan", ["exact", "chunked:16"])
@pytest.mark.parametrize("steep", [1.0, 300.0], ids=["plain", "steep"])
def test_a_training_step_has_finite_gradients_for_every_parameter(scan: str, steep: float) -> None:
    """Dropouts on, padded rows, a row of no token, and logits far apart."""
    torch.manual_seed(0)
    model = tiny_model("online", scan=scan, dropout=0.1, slot_dropout=0.3, slotspace_dropout=0.1).train()
    with torch.no_grad():
        for block in model.layers():
            block.attn.Wk_write.weight.mul_(steep)
    logits, _ = model(torch.randint(31, (3, 70)), lengths=torch.tensor([70, 33, 0]))
    logits[:2, :33].square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name
