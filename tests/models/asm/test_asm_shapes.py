"""Every combination of switches: shapes, finite numbers, and which parameters there are."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from asm_cases import TINY, inputs, tiny_config, tiny_layer, tiny_model

from models import asm
from models.asm import (
    AddressedStateAttention,
    ASMBlock,
    ASMTrainConfig,
    AttentionConfig,
    build_model_from_cfg,
    memory_shapes,
)
from models.asm.attention import VARIANTS
from models.asm.positions import rope_tables

SWITCHES = (
    "use_rope_keys",
    "use_alibi_write",
    "learn_alibi_strength",
    "use_content_read",
    "use_slotspace_refine",
    "slotspace_signed_weights",
    "use_rope_slotspace",
    "normalize_k",
)


@torch.no_grad()
def test_all_switches_in_every_combination_give_their_shapes_and_finite_numbers() -> None:
    """Variants and scans in turn."""
    x = inputs(2, 7)
    variants = list(VARIANTS.values())
    for number, values in enumerate(product((True, False), repeat=len(SWITCHES))):
        options = dict(zip(SWITCHES, values, strict=True))
        scan = ("exact", "chunked:4")[number // 3 % 2]
        layer = variants[number % 3](**{**TINY, **options}, scan=scan).eval()
        y, state = layer(x)
        assert y.shape == x.shape, options
        assert bool(torch.isfinite(y).all()), options
        for name, tensor in state.memory.items():
            assert tensor.shape == (1, 2, *memory_shapes(layer.config)[name]), (name, options)
            assert bool(torch.isfinite(tensor).all()), (name, options)


@pytest.mark.parametrize(("batch", "length", "slots"), [(1, 1, 1), (3, 1, 4), (1, 65, 2), (2, 129, 1)])
@torch.no_grad()
def test_all_sizes_give_their_shapes(batch: int, length: int, slots: int) -> None:
    x = inputs(batch, length)
    for variant in VARIANTS:
        y, state = tiny_layer(variant, num_slots=slots)(x)
        assert y.shape == x.shape
        assert state.t.tolist() == [length] * batch


@pytest.mark.parametrize("kept", [True, False])
@torch.no_grad()
def test_half_precision_keeps_its_state_in_fp32_where_it_should(kept: bool) -> None:
    layer = tiny_layer(state_fp32=kept).bfloat16()
    x = inputs(1, 20)
    y, state = layer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert state.memory.num.dtype == (torch.float32 if kept else torch.bfloat16)
    layer(x[:, :1].bfloat16(), state)
    if kept:
        torch.testing.assert_close(y.float(), tiny_layer()(x)[0], atol=0.2, rtol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_rotations_far_out_are_as_fine_as_their_dtype(dtype: torch.dtype) -> None:
    positions = torch.arange(900, 1000).unsqueeze(0)
    expected = rope_tables(positions, 8, 1e4, torch.float64)
    for found, exact in zip(rope_tables(positions, 8, 1e4, dtype), expected, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), exact, atol=max(torch.finfo(dtype).eps, 1e-4), rtol=0.0)


def test_the_variants_share_their_weights() -> None:
    x = inputs(1, 9)
    baseline = tiny_layer()
    for variant in ("online", "intervene"):
        other = tiny_layer(variant)
        other.load_state_dict(baseline.state_dict())
        torch.testing.assert_close(other(x)[0], baseline(x)[0])


def test_slot_dropout_silences_whole_slots_in_training_alone() -> None:
    layer = tiny_layer(slot_dropout=0.5, num_slots=200)
    assert layer._slot_keys() is layer.slot_keys
    layer.train()
    torch.manual_seed(0)
    silent = (layer._slot_keys() == 0).all(dim=-1)
    partly = (layer._slot_keys() == 0).any(dim=-1)
    assert 0.4 < silent.float().mean() < 0.6
    assert 0.4 < partly.float().mean() < 0.6


def test_the_state_of_the_published_size_is_as_small_as_it_should_be() -> None:
    shapes = memory_shapes(AttentionConfig(embed_dim=384, num_heads=8, num_slots=16, slotspace_dim=32))
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 14_848


def test_the_published_model_has_its_number_of_parameters() -> None:
    options: dict[str, Any] = {"num_slots": 16, "slotspace_dim": 32, "mlp_bias": False}
    block = ASMBlock(ASMTrainConfig.from_mapping(options))
    rest = 50257 * 384 + 2 * 384  # tied embedding, last norm
    assert round((rest + 21 * sum(p.numel() for p in block.parameters())) / 1e6, 2) == 56.71


def test_the_state_dict_has_the_keys_that_checkpoints_know() -> None:
    """The list was written once, from the code."""
    expected = (Path(__file__).parent / "state_dict_keys.txt").read_text("utf-8").splitlines()
    model = build_model_from_cfg(tiny_config(use_abs_pos=True, num_layers=1))
    assert sorted(f"{key} {list(tensor.shape)}" for key, tensor in model.state_dict().items()) == expected


def test_a_layer_takes_its_options_by_name_or_as_a_configuration() -> None:
    config = AttentionConfig(embed_dim=16, num_heads=2)
    assert AddressedStateAttention(config).config == AddressedStateAttention(embed_dim=16, num_heads=2).config


def test_the_example_of_the_page_runs() -> None:
    page = (Path(asm.__file__).parent / "README.md").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    assert names["state"].t.tolist() == [82, 82]
    assert names["last"].shape == (2, 257)


@torch.no_grad()
def test_a_fresh_model_starts_as_the_published_ones_did() -> None:
    torch.manual_seed(0)
    sizes = {"embed_dim": 64, "num_slots": 50, "slotspace_dim": 32, "alibi_strength_init": 0.2, "min_strength": 0.05}
    model = build_model_from_cfg(tiny_config(**sizes))
    layer = model.layers()[0].attn
    for weight in (
        model.token_emb.weight,
        layer.Wk_write.weight,
        layer.slot_in.weight,
        model.layers()[1].mlp[0].weight,
    ):
        assert float(weight.std()) == pytest.approx(0.02, rel=0.1)
    assert float(layer.slot_keys.std()) == pytest.approx(32**-0.5, rel=0.1)
    assert not bool(model.layers()[0].mlp[3].bias.any())
    assert float(layer.strength()) == pytest.approx(0.2)
    softplus = math.log1p(math.exp(-4.0))
    assert (float(layer.gamma()), float(layer.gate())) == pytest.approx((softplus, softplus))


def test_a_fresh_model_of_one_seed_is_one_model() -> None:
    def fresh() -> torch.Tensor:
        torch.manual_seed(7)
        return build_model_from_cfg(tiny_config()).eval()(torch.tensor([[1, 2, 3]]))[0]

    assert torch.equal(fresh(), fresh())
    assert not torch.equal(fresh(), tiny_model()(torch.tensor([[1, 2, 3]]))[0])
