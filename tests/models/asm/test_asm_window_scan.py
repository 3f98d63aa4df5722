"""The scan over whole windows gives what the exact scan gives: results, states and gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from models import asm
from models.asm import ASMLanguageModel, Memory, State
from models.asm.scan import write_scan
from models.asm.slots import Slots, Window
from models.asm.window_scan import SEGMENT, window_scan

CONFIG = asm.ASMTrainConfig(
    vocab_size=17,
    embed_dim=32,
    num_layers=2,
    num_heads=8,
    num_slots=4,
    slotspace_dim=8,
    dropout=0.0,
    slot_dropout=0.0,
    slotspace_dropout=0.0,
    content_read_init=0.0,
    slotspace_gate_init=0.0,
    max_seq_len=64,
    pos_mode="cyclic",
)


def model_of(strength: float, sharpness: float) -> ASMLanguageModel:
    """A model in double precision whose write logits differ by about `sharpness`."""
    torch.manual_seed(5)
    model = asm.build_model_from_cfg(replace(CONFIG, alibi_strength_init=strength), "online").double()
    with torch.no_grad():
        for block in model.layers():
            block.attn.Wk_write.weight.mul_(sharpness)
    return model


def run(model: ASMLanguageModel, scan: object, tokens: Tensor, state: State) -> tuple[Tensor, State, dict[str, Tensor]]:
    """Two windows with the state carried between them: logits, the state after, gradients."""
    for block in model.layers():
        block.attn.write_scan = scan  # type: ignore[assignment]
    model.zero_grad()
    first, middle, *_ = model(tokens[:, :64], state)
    second, after, *_ = model(tokens[:, 64:], middle)
    logits = torch.cat((first, second), dim=1)
    (logits * torch.arange(17)).square().mean().backward()
    return (
        logits.detach(),
        after.detach(),
        {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
    )


@pytest.mark.parametrize(("strength", "sharpness"), [(0.1, 1.0), (4.0, 1.0), (4.0, 60.0), (40.0, 60.0)])
def test_windows_equal_the_exact_scan(strength: float, sharpness: float) -> None:
    model = model_of(strength, sharpness)
    tokens = torch.randint(17, (3, 128), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, state, *_ = model(tokens[:, :40])
    state.put([1], model.new_state(1))  # a row that has read nothing, beside others
    logits, after, gradients = run(model, write_scan, tokens, state)
    found, end, theirs = run(model, window_scan, tokens, state)
    torch.testing.assert_close(found, logits, rtol=1e-9, atol=1e-9)
    for (name, one), (_, other) in zip(after.memory.items(), end.memory.items(), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-7, atol=1e-9, msg=name)
    assert gradients.keys() == theirs.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-6, atol=1e-9 * float(gradient.abs().max()) + 1e-12)


@pytest.mark.parametrize("sharpness", [1.0, 300.0])
def test_single_precision_holds_sharp_logits(sharpness: float) -> None:
    """Logits that lie up to 170 apart: denominators whose squares single precision does not hold."""
    model, logits, scale = model_of(2.0, sharpness), list[float](), 64
    tokens = torch.randint(17, (2, 2 * scale), generator=torch.Generator().manual_seed(2))

    def seen(write_logits: Tensor, *rest: object) -> object:
        logits.append(float((write_logits.amax(dim=2) - write_logits.amin(dim=2)).detach().max()))
        return write_scan(write_logits, *rest)  # type: ignore[arg-type]

    exact, _, gradients = run(model, seen, tokens, model.new_state(2))
    assert max(logits) > 0.3 * sharpness
    single = model.float()
    found, _, theirs = run(single, window_scan, tokens, single.new_state(2))
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-4)
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            theirs[name].double(), gradient, rtol=1e-3, atol=2e-4 * float(gradient.abs().max()) + 1e-9, msg=name
        )


def test_what_is_no_whole_window_goes_the_usual_way() -> None:
    layer = asm.AddressedStateAttention(CONFIG.attention()).eval()
    usual = asm.AddressedStateAttention(CONFIG.attention()).eval()
    usual.load_state_dict(layer.state_dict())
    ways = []

    def seen(*call: Any) -> tuple[Slots, Memory]:
        slots, memory = window_scan(*call)
        ways.append(isinstance(slots.segments[0], Window))
        return slots, memory

    layer.write_scan = seen
    x = torch.randn(1, SEGMENT, 32, generator=torch.Generator().manual_seed(3))
    for width, lengths in ((SEGMENT, None), (SEGMENT - 1, None), (SEGMENT, torch.tensor([5]))):
        y, _, info = layer(x[:, :width], lengths=lengths, return_info=True)
        expected, _, usual_info = usual(x[:, :width], lengths=lengths, return_info=True)
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(info["slot_state_norm"], usual_info["slot_state_norm"])
    assert ways == [True, False, False]
