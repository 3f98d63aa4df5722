"""Input that cannot be used: an error that says what it is and where."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from asm_cases import inputs, tiny_config, tiny_layer, tiny_model

from models.asm import ASMError, ASMTrainConfig, AttentionConfig, ConfigError, InputError, build_model_from_cfg
from models.asm.configuration import ALIASES

X = inputs(2, 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"slotspace_dim": 7}, "even slotspace_dim, not 7"),
        ({"embed_dim": 17}, "embed_dim 17 must be a multiple of num_heads 2"),
        ({"embed_dim": 6, "num_heads": 2}, "even head size, not 3"),
        ({"num_slots": 0}, "num_slots must be at least 1, not 0"),
        ({"scan": "chunk:7"}, "scan must be exact, chunked or chunked:<tokens>, not 'chunk:7'"),
        ({"scan": "chunked:0"}, "chunked:0"),
        ({"pos_mode": "round"}, "pos_mode must be one of absolute, cyclic, not 'round'"),
        ({"num_layers": 0}, "num_layers must be at least 1"),
        ({"slots": 4}, "no field 'slots'"),
        ({"n_embd": 32}, "sets embed_dim twice"),
        ({"mlp_ratio": 0.0}, "mlp_ratio"),
        ({"num_slots": "8"}, "num_slots should be of type int, found '8'"),
        ({"num_slots": True}, "num_slots should be of type int, found True"),
        ({"num_slots": 2.5}, r"num_slots should be of type int, found 2\.5"),
        ({"rope_base": "10000"}, "rope_base should be of type float, found '10000'"),
        ({"tie_weights": 1}, "tie_weights should be of type bool, found 1"),
        ({"scan": 128}, "scan should be of type str, found 128"),
        ({"betas": [0.9]}, r"betas should be of type tuple, found \[0\.9\]"),
    ],
)
def test_a_configuration_that_no_model_can_have_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny_config(**options)


def test_an_odd_slotspace_is_fine_where_nothing_turns_it() -> None:
    tiny_layer(slotspace_dim=7, use_rope_slotspace=False)(X)


def test_errors_of_the_package_are_value_errors() -> None:
    assert issubclass(ASMError, ValueError)
    with pytest.raises(ValueError, match="variant must be one of baseline, online, intervene, not 'fast'"):
        build_model_from_cfg(tiny_config(), "fast")
    with pytest.raises(ConfigError, match="unexpected keyword argument 'slots'"):
        tiny_layer(slots=3)
    with pytest.raises(ConfigError, match="cyclic needs max_seq_len"):
        AttentionConfig(pos_mode="cyclic")


def test_aliases_mean_their_fields() -> None:
    for alias, field in ALIASES.items():
        assert getattr(ASMTrainConfig.from_mapping({alias: 16}), field) == 16
    config = tiny_config(betas=[0.8, 0.9], tag=None, train_samples_target=1e8, rope_base=10000)
    assert (config.betas, config.tag, config.train_samples_target) == ((0.8, 0.9), "", 100_000_000)
    assert ASMTrainConfig.from_mapping(config.to_mapping()) == config
    assert ASMTrainConfig.from_mapping({"colour": "red"}, strict=False) == ASMTrainConfig()


def test_a_text_beyond_its_limit_is_refused_unless_positions_are_cyclic() -> None:
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    model = tiny_model(max_seq_len=8, use_abs_pos=True)
    _, state = model(tokens)
    with pytest.raises(InputError, match="12 tokens are more than max_seq_len 8"):
        model(tokens, state)
    model(tokens, state, lengths=torch.tensor([2, 1]))  # what stands beyond the limit is padding
    cyclic = tiny_model(max_seq_len=8, use_abs_pos=True, pos_mode="cyclic")
    _, state = cyclic(tokens)
    logits, state = cyclic(tokens, state)
    assert state.t.tolist() == [12, 12]
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.ones(2, 5), r"attention_mask should have shape \[2, 6\], found \[2, 5\]"),
        (torch.ones(6), r"attention_mask should have shape \[2, 6\], found \[6\]"),
        (torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]), "pads row 1 at the left"),
        (torch.tensor([[1, 1, 0, 1, 0, 0], [1] * 6]), "pads row 0 between tokens"),
    ],
)
def test_a_mask_that_is_no_right_padding_is_refused(mask: torch.Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_layer()(X, attention_mask=mask)


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([7, 6], r"lengths must lie in 0\.\.6, found 6\.\.7"),
        ([-1, 6], r"found -1\.\.6"),
        ([6], r"lengths should have shape \[2\], found \[1\]"),
    ],
)
def test_lengths_that_cannot_be_are_refused(lengths: list[int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_layer()(X, lengths=torch.tensor(lengths))


def test_lengths_and_a_mask_and_no_token_are_refused() -> None:
    with pytest.raises(InputError, match="not both"):
        tiny_layer()(X, lengths=torch.tensor([6, 6]), attention_mask=torch.ones(2, 6))
    with pytest.raises(InputError, match="at least one token"):
        tiny_layer()(X[:, :0])
    with pytest.raises(InputError, match=r"tokens should have shape \[B, T\], found \[3\]"):
        tiny_model()(torch.tensor([1, 2, 3]))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"slot_mask": torch.ones(4)}, r"slot_mask should have shape \[5\], found \[4\]"),
        ({"slot_mask": torch.zeros(5)}, "slot_mask must keep at least one slot"),
        ({"slot_mask": torch.ones(5), "slot_mask_where": "write"}, "slot_mask_where must be one of"),
        ({"slot_mask": torch.ones(5), "slot_mask_scope": "first"}, "slot_mask_scope must be one of"),
        ({"routing_mode": "hard"}, "routing_mode must be one of softmax, top1, topk, external, not 'hard'"),
        ({"routing_mode": "external"}, "external needs read_weights_override"),
        ({"routing_mode": "topk", "routing_topk": 0}, "routing_topk must be at least 1"),
        ({"routing_noise": "pink"}, "routing_noise must be one of"),
        (
            {"routing_mode": "external", "read_weights_override": torch.ones(2, 2, 6, 4)},
            r"read_weights_override should have shape \[2, 2, 6, 5\] \(B, H, T, K\), found \[2, 2, 6, 4\]",
        ),
    ],
)
def test_a_flag_with_a_value_that_it_cannot_have_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tiny_layer()(X, **flags)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("_intv_mode", "delta", "_intv_mode must be one of"),
        ("_intv_score_kind", "size", "_intv_score_kind must be one of"),
        ("_intv_head_mask", torch.ones(3), r"_intv_head_mask should have shape \[2\], found \[3\]"),
        ("routing_override", torch.ones(1, 2), "routing_override should have shape"),
    ],
)
def test_an_attribute_with_a_value_that_it_cannot_have_is_refused(name: str, value: Any, words: str) -> None:
    layer = tiny_layer("intervene")
    setattr(layer, name, value)
    with pytest.raises(InputError, match=words):
        layer(X)


def test_an_unknown_option_of_the_info_is_refused() -> None:
    with pytest.raises(InputError, match="info_cfg has no option store_all"):
        tiny_layer("intervene")(X, return_info=True, info_cfg={"store_all": True})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_slots": 4}, r"the state's m should have shape \[1, 2, 2, 5\], found \[1, 2, 2, 4\]"),
        ({"slotspace_dim": 8}, r"the state's S should have shape"),
        ({"use_slotspace_refine": False}, r"the state's S should have shape"),
        ({"scan": "chunked:4"}, "written by scan chunked:4, but this model uses exact"),
    ],
)
def test_a_state_of_another_configuration_is_refused(options: dict[str, Any], words: str) -> None:
    _, state = tiny_layer(**options)(X)
    with pytest.raises(InputError, match=words):
        tiny_layer()(X, state)


def test_a_state_of_another_batch_depth_or_chunk_is_refused() -> None:
    _, state = tiny_layer()(X)
    with pytest.raises(InputError, match=r"the state's t should have shape \[1\], found \[2\]"):
        tiny_layer()(X[:1], state)
    with pytest.raises(InputError, match=r"the state's m should have shape \[2, 2, 2, 5\], found \[1, 2, 2, 5\]"):
        tiny_model()(torch.zeros(2, 1, dtype=torch.int64), state)
    with pytest.raises(InputError, match="written by scan chunked:4, but this model uses chunked:8"):
        tiny_layer(scan="chunked:8")(X, tiny_layer(scan="chunked:4")(X)[1])
    with pytest.raises(InputError, match=r"the state's m should be torch\.float64, found torch\.float32"):
        tiny_layer().double()(X.double(), state)


def test_a_configuration_cannot_be_changed_after_it_was_checked() -> None:
    config = tiny_config()
    with pytest.raises(AttributeError):
        config.num_slots = 3  # type: ignore[misc]
    with pytest.raises(ConfigError, match="num_slots"):
        replace(config, num_slots=0)
