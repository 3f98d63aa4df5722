"""The stepper gives what the model gives, for every option that it takes, and leaves the model what it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from asm_cases import tiny_model

from models.asm import State, Stepper, fingerprint, load_checkpoint, save_checkpoint

OPTIONS: list[dict[str, Any]] = [
    {},
    {"pos_mode": "cyclic", "max_seq_len": 7},
    {"use_abs_pos": True, "tie_weights": False},
    {"use_abs_pos": True, "pos_mode": "cyclic", "max_seq_len": 7},
    {"use_rope_keys": False},
    {"use_alibi_write": False},
    {"learn_alibi_strength": False, "min_strength": 0.2},
    {"use_content_read": False},
    {"content_read_max_gamma": 0.1},
    {"use_slotspace_refine": False},
    {"use_rope_slotspace": False, "slotspace_dim": 5},
    {"slotspace_signed_weights": False},
    {"normalize_k": True},
    {"read_temperature": 0.7, "write_temperature": 2.5},
    {"rope_base": 50.0, "rope_base_slotspace": 20.0, "mlp_bias": False},
    {"num_heads": 1, "num_slots": 1},
    {"num_heads": 8, "mlp_ratio": 1.0},
    {"use_rope_keys": False, "embed_dim": 15, "num_heads": 3},
]


def near(found: State, wanted: State) -> bool:
    pairs = zip(found.memory.items(), wanted.memory.items(), strict=True)
    return torch.equal(found.t, wanted.t) and all(
        torch.allclose(a, b, atol=2e-5, rtol=2e-5) for (_, a), (_, b) in pairs
    )


@torch.inference_mode()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_it_steps_as_the_model_does(options: dict[str, Any], batch: int) -> None:
    """Rows that stand at positions of their own, from nothing and from what they have read."""
    model, stepped = tiny_model("online", **options), tiny_model("baseline", **options)
    tokens = torch.randint(31, (batch, 14), generator=torch.Generator().manual_seed(2))
    stepper = Stepper(stepped)
    wanted, state = model.new_state(batch), stepped.new_state(batch)
    for column in range(14):
        if column == 5:  # some rows read more at once
            lengths = torch.arange(1, batch + 1)
            _, wanted = model(tokens[:, :batch], wanted, lengths=lengths)
            _, state = stepped(tokens[:, :batch], state, lengths=lengths)
        logits, wanted = model(tokens[:, column : column + 1], wanted)
        found = stepper.step(tokens[:, column], state)
        assert torch.allclose(found, logits[:, 0], atol=3e-5), column
        assert near(state, wanted)
    assert logits.std() > 0.3, "the logits say something"


@torch.inference_mode()
def test_it_shares_the_models_weights_and_leaves_them_as_they_were(tmp_path: Path) -> None:
    model = tiny_model(tie_weights=False)
    tokens = torch.arange(20).unsqueeze(0)
    before, number = model(tokens)[0], fingerprint(model, "bytes")
    stepper = Stepper(model)
    assert torch.allclose(model(tokens)[0], before, atol=1e-6)
    assert fingerprint(model, "bytes") == number
    save_checkpoint(model, tmp_path / "again.safetensors")
    assert fingerprint(load_checkpoint(tmp_path / "again.safetensors").model, "bytes") == number
    attention = model.layers()[0].attn
    attention.Wv_write.weight.zero_()
    state, other = model.new_state(1), model.new_state(1)
    stepper.step(torch.tensor([3]), state)
    _, other = model(torch.tensor([[3]]), other)
    assert not state.memory.num[0].any()
    assert near(state, other)


def test_which_models_it_takes() -> None:
    assert Stepper.fits(tiny_model())
    assert not Stepper.fits(tiny_model(scan="chunked:4"))
    assert not Stepper.fits(tiny_model().to(torch.bfloat16))
