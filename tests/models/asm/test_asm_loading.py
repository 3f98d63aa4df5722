"""Checkpoints: both naming schemes, the differences that are allowed, and errors that name the key."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from asm_cases import prefixed, tiny_config, tiny_model
from safetensors.torch import save_file
from torch import Tensor

from models.asm import ASMLanguageModel, WeightsError, load_checkpoint, load_tensors, save_checkpoint

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
OTHER_NAMES = (
    ("token_emb.", "tok."),
    ("pos_emb.", "pos."),
    ("ln_f.", "norm."),
    (".ln_1.", ".norm1."),
    (".ln_2.", ".norm2."),
    (".attn.", ".asa."),
)


def legacy(model: ASMLanguageModel) -> dict[str, Tensor]:
    """The model's tensors under the notebooks' names."""
    named: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        for ours, theirs in OTHER_NAMES:
            key = key.replace(ours, theirs)
        named[key] = tensor
    return named


@torch.no_grad()
def logits(model: ASMLanguageModel) -> Tensor:
    found: Tensor = model(TOKENS)[0]
    return found


def plain_config(model: ASMLanguageModel, *without: str) -> dict[str, Any]:
    return {key: value for key, value in model.config.to_mapping().items() if key not in without}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("options", [{}, {"tie_weights": False, "use_abs_pos": True, "scan": "chunked:4"}])
def test_a_saved_model_comes_back(tmp_path: Path, suffix: str, options: dict[str, Any]) -> None:
    model = tiny_model(**options)
    save_checkpoint(model, tmp_path / f"model{suffix}")
    loaded = load_checkpoint(tmp_path / f"model{suffix}", variant="online")
    assert loaded.model.config == model.config
    assert (loaded.missing, loaded.unused, loaded.model.training) == ((), (), False)
    assert torch.equal(logits(loaded.model), logits(model))


@pytest.mark.parametrize("wrapper", ["model_state_dict", "state_dict", "model", "model_state", None])
@pytest.mark.parametrize("names", ["canonical", "legacy"])
def test_both_schemes_load_in_every_wrapping(tmp_path: Path, wrapper: str | None, names: str) -> None:
    model = tiny_model(use_abs_pos=True)
    tensors = legacy(model) if names == "legacy" else model.state_dict()
    tensors = {f"module.{key}": tensor.clone() for key, tensor in tensors.items()}
    path = tmp_path / "best.pt"
    torch.save({wrapper: tensors, "step": 7} if wrapper else tensors, path)
    loaded = load_checkpoint(path, cfg=model.config)
    assert torch.equal(logits(loaded.model), logits(model))


def test_the_configuration_may_stand_beside_the_file(tmp_path: Path) -> None:
    model = tiny_model()
    save_file({key: tensor.clone() for key, tensor in model.state_dict().items()}, tmp_path / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"neither the file nor a config\.json beside it has the model's configuration"
    ):
        load_checkpoint(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(plain_config(model)), "utf-8")
    assert torch.equal(logits(load_checkpoint(tmp_path / "model.safetensors").model), logits(model))


def test_a_file_that_does_not_say_its_scan_needs_one(tmp_path: Path) -> None:
    model = tiny_model(write_chunk_size=4)
    path = tmp_path / "final.pt"
    torch.save({"model": model.state_dict(), "cfg": plain_config(model, "scan")}, path)
    with pytest.raises(WeightsError, match=r'final\.pt: .*does not name the scan: set scan = "chunked:4"'):
        load_checkpoint(path)
    exact, chunked = (load_checkpoint(path, scan=scan).model for scan in ("exact", "chunked"))
    assert torch.equal(logits(exact), logits(model))
    assert chunked.config.attention().chunk == 4
    assert not torch.allclose(logits(chunked), logits(exact), atol=1e-3)


def test_a_legacy_file_without_mlp_biases_makes_a_model_without_them(tmp_path: Path) -> None:
    model = tiny_model(mlp_bias=False)
    path = tmp_path / "best.pt"
    torch.save({"model": legacy(model), "cfg": plain_config(model, "mlp_bias")}, path)
    loaded = load_checkpoint(path)
    assert (loaded.missing, loaded.model.config.mlp_bias) == ((), False)
    assert torch.equal(logits(loaded.model), logits(model))


def test_allowed_differences_are_reported_and_do_nothing() -> None:
    source = tiny_model(use_content_read=False, use_slotspace_refine=False)
    config = tiny_config(use_abs_pos=True)
    extra = {"blocks.0.attn._alibi_slopes": torch.ones(2), "blocks.1.attn.rope.inv_freq": torch.ones(4)}
    loaded = load_tensors(source.state_dict() | extra, config)
    assert set(loaded.unused) == set(extra)
    refinement = ("slot_in.weight", "slot_k.weight", "slot_out.weight", "slot_q.weight", "slot_v.weight")
    names = ("_content_read_gamma_raw", "_slotspace_gate_raw", *refinement)
    assert loaded.missing == (*(f"blocks.{i}.attn.{name}" for i in (0, 1) for name in names), "pos_emb.weight")
    for block in loaded.model.layers():
        torch.nn.init.constant_(block.attn._content_read_gamma_raw, -50.0)
    torch.testing.assert_close(logits(loaded.model), logits(source))
    back = load_tensors(loaded.model.state_dict(), source.config)
    assert set(back.unused) == set(loaded.missing)
    torch.testing.assert_close(logits(back.model), logits(source))


@pytest.mark.parametrize(
    "key",
    ["token_emb.weight", "blocks.0.attn.slot_keys", "blocks.1.attn.Wk_write.weight", "blocks.1.ln_2.bias", "ln_f.bias"],
)
def test_a_missing_tensor_is_named(key: str) -> None:
    tensors = {name: tensor for name, tensor in tiny_model().state_dict().items() if name != key}
    with pytest.raises(WeightsError, match=rf"the state dict: the tensor {key} of shape .* is missing"):
        load_tensors(tensors, tiny_config())


def test_a_part_of_a_refinement_is_a_broken_file() -> None:
    tensors = dict(tiny_model().state_dict())
    del tensors["blocks.1.attn.slot_k.weight"]
    with pytest.raises(WeightsError, match=r"blocks\.1\.attn\.slot_k\.weight is missing, while others"):
        load_tensors(tensors, tiny_config())


def test_an_unknown_tensor_is_named_unless_the_reader_is_lenient() -> None:
    tensors = dict(tiny_model().state_dict()) | {"blocks.0.attn.memory": torch.ones(1)}
    with pytest.raises(WeightsError, match=r"the model has no tensor blocks\.0\.attn\.memory"):
        load_tensors(tensors, tiny_config())
    assert load_tensors(tensors, tiny_config(), strict=False).unused == ("blocks.0.attn.memory",)


def test_an_unknown_field_of_the_configuration_is_named_unless_the_reader_is_lenient(tmp_path: Path) -> None:
    model, path = tiny_model(), tmp_path / "model.pt"
    torch.save({"model": model.state_dict(), "cfg": model.config.to_mapping() | {"window": 4}}, path)
    with pytest.raises(WeightsError, match=r"model\.pt: the configuration has no field 'window'"):
        load_checkpoint(path)
    assert load_checkpoint(path, strict=False).model.config == model.config


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("blocks.0.attn.slot_keys", torch.ones(2, 4, 8), r"should have shape \[2, 5, 8\], found \[2, 4, 8\]"),
        ("pos_emb.weight", torch.ones(9, 16), r"should have shape \[256, 16\], found \[9, 16\]"),
        ("blocks.1.mlp.0.bias", torch.full((64,), torch.nan), "holds 64 values that are NaN or infinite"),
        ("blocks.1.attn._slotspace_gate_raw", torch.tensor(torch.inf), "holds 1 values that are NaN or infinite"),
        ("ln_f.weight", torch.ones(16, dtype=torch.int64), "should hold floating point numbers, found torch.int64"),
        ("lm_head.weight", torch.ones(31, 16), "lm_head.weight differs from token_emb.weight"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(key: str, value: Tensor, words: str) -> None:
    tensors = dict(tiny_model(use_abs_pos=True).state_dict()) | {key: value}
    with pytest.raises(WeightsError, match=rf"the state dict: {key}.*{words.replace(key, '')}"):
        load_tensors(tensors, tiny_config(use_abs_pos=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layers": 10**9}, "num_layers is 1000000000, but there are tensors for 2 blocks"),
        ({"vocab_size": 10**12}, r"token_emb\.weight should have shape \[1000000000000, 16\], found \[31, 16\]"),
        ({"mlp_ratio": 1e9}, r"blocks\.0\.mlp\.0\.weight should have shape \[16000000000, 16\], found \[64, 16\]"),
        ({"slotspace_dim": 10**9}, r"slot_in\.weight should have shape \[1000000000, 5\], found \[6, 5\]"),
    ],
)
def test_a_configuration_of_another_size_takes_no_memory(options: dict[str, Any], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load_tensors(tiny_model().state_dict(), tiny_config(**options))


def test_a_scalar_may_be_stored_with_an_axis() -> None:
    model = tiny_model()
    tensors = {key: tensor.view(-1) if tensor.ndim == 0 else tensor for key, tensor in model.state_dict().items()}
    assert torch.equal(logits(load_tensors(tensors, model.config).model), logits(model))


def test_two_tensors_of_one_meaning_are_refused() -> None:
    tensors = prefixed("lm.legacy.weights.") | prefixed("lm.canonical.weights.")
    with pytest.raises(WeightsError, match=r"two of its tensors map to blocks\.0\."):
        load_tensors(tensors, tiny_config())


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 10, 3000])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"model{suffix}"
    save_checkpoint(tiny_model(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=rf"model\{suffix}: the file (is damaged|holds more)"):
        load_checkpoint(path)


def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    torch.save({"model": Trap()}, tmp_path / "model.pt", pickle_module=pickle)
    with pytest.raises(WeightsError, match="holds more than tensors and plain values"):
        load_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("nowhere.pt", None, "there is no such file"),
        ("model.gguf", {}, r"must end in \.safetensors, \.pt or \.pth"),
        ("list.pt", [1, 2], "should hold a dict of tensors"),
        ("empty.pt", {}, "should hold a dict of tensors"),
        ("config.pt", {"model": {"a": torch.ones(1)}, "cfg": 3}, "its configuration should be a mapping, found int"),
        ("text.pt", {"model": {"a": torch.ones(1)}, "cfg": "{"}, "its configuration is not valid JSON"),
    ],
)
def test_other_files_are_refused_in_plain_words(tmp_path: Path, name: str, content: Any, words: str) -> None:
    if content is not None:
        torch.save(content, tmp_path / name)
    with pytest.raises(WeightsError, match=words):
        load_checkpoint(tmp_path / name)


def test_a_model_is_saved_under_known_suffixes_alone(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"must end in \.safetensors"):
        save_checkpoint(tiny_model(), tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []
