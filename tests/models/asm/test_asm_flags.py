"""The flags and attributes of the variants: what each does, and that no unsupported one is ignored."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asm_cases import inputs, tiny_layer, tiny_model
from torch import Tensor

from models.asm import InputError
from models.asm.attention import VARIANTS
from models.asm.flags import BASELINE_FLAGS, INTERVENE_FLAGS, ONLINE_FLAGS
from models.asm.layer import AttentionLayer

X = inputs(2, 12)
UNIFORM = torch.full((2, 2, 12, 5), 0.2)
FLAG_SETS = {"baseline": BASELINE_FLAGS, "online": ONLINE_FLAGS, "intervene": INTERVENE_FLAGS}
EXAMPLES: dict[str, Any] = {
    "return_info": True,
    "return_light_stats": True,
    "routing_mode": "top1",
    "routing_topk": 1,
    "read_weights_override": UNIFORM,
    "routing_noise": "gumbel",
    "routing_noise_scale": 2.0,
    "slot_mask": torch.tensor([1, 0, 1, 1, 1]),
    "slot_mask_where": "slotspace_only",
    "slot_mask_scope": "last_pos_only",
    "info_level": "full",
    "info_cfg": {"store_out1": True},
}
ATTRIBUTES: dict[str, Any] = {
    "routing_override": UNIFORM,
    "slot_mask": EXAMPLES["slot_mask"],
    "_intv_mode": "delta_par",
    "_log_refine_geom": True,
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("flag", EXAMPLES)
@torch.no_grad()
def test_a_flag_works_or_is_refused_by_name(variant: str, flag: str) -> None:
    layer = tiny_layer(variant)
    if flag in FLAG_SETS[variant]:
        layer(X, **{flag: EXAMPLES[flag]})
    else:
        with pytest.raises(InputError, match=rf"{variant} variant does not support the flag {flag}"):
            layer(X, **{flag: EXAMPLES[flag]})
        with pytest.raises(InputError, match=flag):
            tiny_model(variant)(torch.zeros(1, 2, dtype=torch.int64), **{flag: EXAMPLES[flag]})


def test_a_flag_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InputError, match="has no flag slotmask"):
        tiny_layer()(X, slotmask=EXAMPLES["slot_mask"])


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ATTRIBUTES)
@torch.no_grad()
def test_an_attribute_works_or_is_refused_by_name(variant: str, name: str) -> None:
    layer = tiny_layer(variant)
    plain = layer(X)[0]
    if name in layer.ATTRIBUTES:
        setattr(layer, name, ATTRIBUTES[name])
        changed = not torch.allclose(layer(X)[0], plain, atol=1e-3)
        assert changed == (name != "_log_refine_geom")
    else:
        with pytest.raises(InputError, match=rf"{variant} variant does not support the attribute {name}"):
            setattr(layer, name, ATTRIBUTES[name])


@torch.no_grad()
def test_an_override_may_be_weights_or_a_function_and_is_made_a_share() -> None:
    layer = tiny_layer()
    seen: list[tuple[int, int]] = []

    def override(t0: int, t1: int, logits: Tensor, key: Tensor, content: Tensor, ctx: dict[str, Any]) -> Tensor:
        seen.append((t0, t1))
        assert ctx["layer"] is layer
        torch.testing.assert_close(logits, key + layer.gamma() * content)
        weights = logits.softmax(dim=-1) * 3
        weights[..., 0] = torch.nan
        weights[..., 1] = -1.0
        return weights

    layer.routing_override = override
    *_, info = layer(X, return_info=True, routing_mode="top1")
    assert seen == [(0, 12)]
    assert bool((info["read_weights"][..., :2] == 0).all())
    torch.testing.assert_close(info["read_weights"].sum(dim=-1), torch.ones(2, 2, 12))
    layer.routing_override = None
    external = layer(X, routing_mode="external", read_weights_override=UNIFORM * 7)[0]
    layer.routing_override = UNIFORM
    torch.testing.assert_close(layer(X)[0], external)


@torch.no_grad()
def test_noise_follows_the_generator_and_its_scale() -> None:
    layer = tiny_layer()

    def read(**flags: Any) -> Tensor:
        torch.manual_seed(1)
        found: Tensor = layer(X, return_info=True, **flags)[2]["read_logits"]
        return found

    plain, once, twice = read(), read(routing_noise="gaussian"), read(routing_noise="gaussian", routing_noise_scale=2.0)
    torch.testing.assert_close(twice - plain, 2 * (once - plain), atol=1e-5, rtol=1e-5)
    gumbel = read(routing_noise="gumbel", routing_noise_scale=1.0) - plain
    assert 0.3 < float(gumbel.mean()) < 0.9  # Euler's constant is 0.577


@torch.no_grad()
def test_a_slot_mask_is_the_layers_where_the_call_gives_none() -> None:
    layer = tiny_layer()
    by_flag = layer(X, slot_mask=EXAMPLES["slot_mask"])[0]
    layer.slot_mask = EXAMPLES["slot_mask"]
    assert torch.equal(layer(X)[0], by_flag)
    assert not torch.equal(layer(X, slot_mask=torch.ones(5))[0], by_flag)


@pytest.mark.parametrize(
    ("scan", "where", "others"),
    [
        ("exact", "read", []),
        ("exact", "slotspace_only", []),
        ("chunked:8", "slotspace_only", []),
        ("chunked:8", "read", [7]),
    ],
)
@torch.no_grad()
def test_the_last_position_is_each_rows_own(scan: str, where: str, others: list[int]) -> None:
    """In the chunked scan, the read is masked at the end of every write chunk, too."""
    layer = tiny_layer(scan=scan, use_slotspace_refine=where == "slotspace_only")  # it carries a changed read on
    flags: dict[str, Any] = {"slot_mask": EXAMPLES["slot_mask"], "slot_mask_scope": "last_pos_only"}
    flags["slot_mask_where"] = where
    lengths = torch.tensor([12, 4])
    difference = (layer(X, lengths=lengths, **flags)[0] - layer(X, lengths=lengths)[0]).abs().amax(dim=-1) > 1e-3
    assert difference[0].nonzero().flatten().tolist() == [*others, 11]
    assert difference[1, :4].nonzero().flatten().tolist() == [3]


@torch.no_grad()
def test_the_parts_of_the_refinement_add_up_to_it() -> None:
    layer = tiny_layer("intervene")
    plain = layer(X)[0]
    layer._intv_mode = "delta_par_plus_orth"
    torch.testing.assert_close(layer(X)[0], plain, atol=1e-5, rtol=1e-5)
    for kind in ("orth_frac", "orth_ratio", "alpha_abs", "slot_peaked"):
        layer._intv_mode, layer._intv_score_kind = "orth_gate", kind
        layer._intv_tau_kind, layer._intv_tau, layer._intv_mask_mode = "abs", -1.0, "hard"
        torch.testing.assert_close(layer(X)[0], plain, atol=1e-5, rtol=1e-5)  # every score lies above
        layer._intv_tau_kind, layer._intv_tau_pctl = "pctl", 50.0
        assert not torch.allclose(layer(X)[0], plain, atol=1e-3)


def stored(layer: AttentionLayer, **flags: Any) -> set[str]:
    info = layer(X, return_info=True, **flags)[2]
    return {name for name, value in info.items() if isinstance(value, Tensor) and value.ndim > 1}


@torch.no_grad()
def test_the_info_of_the_intervening_variant_has_levels_and_exceptions() -> None:
    layer = tiny_layer("intervene")
    logits = {"read_logits", "read_logits_key", "read_logits_content", "write_logits", "write_logits_raw"}
    assert stored(layer) == {"read_weights"}
    assert stored(layer, info_level="logits") == {"read_weights"} | logits
    assert stored(layer, info_level="full") == {"read_weights", "slot_state_norm", "out1", "delta", "slot_w"} | logits
    config = {"store_read_weights": False, "store_delta": True, "time_stride": 5, "batch_stride": 2}
    info = layer(X, return_info=True, info_cfg=config)[2]
    assert "read_weights" not in info
    assert info["delta"].shape == (1, 2, 3, 8)
    config = {"store_write_logits": True, "time_stride": 5, "detach_to_cpu": True}
    assert layer(X, return_info=True, info_cfg=config)[2]["write_logits"].shape == (2, 2, 5, 3)


@torch.no_grad()
def test_a_model_returns_the_info_of_every_layer() -> None:
    model = tiny_model()
    _, state, infos = model(torch.zeros(2, 3, dtype=torch.int64), return_info=True)
    assert [info["read_weights"].shape for info in infos] == [(2, 2, 3, 5)] * 2
    _, _, infos = model(torch.zeros(2, 1, dtype=torch.int64), state, return_info=True)
    assert infos[0]["alibi_bias_applied"].shape == (1, 2, 1, 1)
    assert float(infos[0]["alibi_bias_applied"][0, 0, 0, 0]) == pytest.approx(
        3 * float(infos[0]["alibi_strength"]) / 16
    )


@torch.no_grad()
def test_means_over_write_chunks_need_rows_at_one_place() -> None:
    layer = tiny_layer("online", scan="chunked:8")
    _, state = layer(X, lengths=torch.tensor([12, 4]))
    with pytest.raises(InputError, match="rows at different positions do not share write chunks"):
        layer(X, state, return_info=True)
    *_, info = layer(X[:1], state.pick([1]), return_info=True)
    assert info["entropy_mean"] > 0
