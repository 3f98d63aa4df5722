"""RWKV-7 in Hugging Face's layout is the same model as the official file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rwkv_hf import hugged, written
from safetensors.torch import save_file

from models import rwkv7
from models.foreign import identify
from models.rwkv7 import Config, WeightsError

CONFIG = Config(layers=3, channels=64, head_size=32, vocabulary=257, ffn=96, rank_w=8, rank_a=12, rank_v=16, rank_g=20)


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    return rwkv7.random_tensors(CONFIG, seed=3)


def logits(path: Path) -> torch.Tensor:
    weights = rwkv7.load(path)
    out, _ = rwkv7.forward(weights, torch.tensor([[5, 99, 7, 200]]), None, rwkv7.new_state(weights.config, 1))
    return out


def test_both_layouts_compute_the_same(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    rwkv7.save(tensors, tmp_path / "official.pth")
    expected = logits(tmp_path / "official.pth")
    save_file(hugged(tensors), tmp_path / "model.safetensors")
    torch.save(hugged(tensors), tmp_path / "pytorch_model.bin")
    folder = written(tmp_path / "parts", hugged(tensors))
    for path in (
        tmp_path / "model.safetensors",
        tmp_path / "pytorch_model.bin",
        tmp_path,
        folder,
        folder / "model.safetensors.index.json",
        folder / "model-00001-of-00002.safetensors",
    ):
        assert identify(path).code == "rwkv7_hf"
        assert torch.equal(logits(path), expected), path


def test_older_files_pack_the_token_shifts_and_some_tie_the_head(
    tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    tensors["head.weight"] = tensors["emb.weight"].clone()
    rwkv7.save(tensors, tmp_path / "official.pth")
    packed = hugged(tensors)
    del packed["lm_head.weight"]
    for layer in range(CONFIG.layers):
        one = [packed.pop(f"model.layers.{layer}.attn.x_{name}") for name in "rwkvag"]
        packed[f"model.layers.{layer}.attn.x_x"] = torch.stack(one)
    save_file(packed, tmp_path / "packed.safetensors")
    assert torch.equal(logits(tmp_path / "packed.safetensors"), logits(tmp_path / "official.pth"))


def test_what_is_missing_or_does_not_belong_is_named(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    folder = written(tmp_path / "parts", hugged(tensors))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors is missing: download it too"):
        rwkv7.load(folder)
    save_file(hugged(tensors) | {"model.layers.0.attn.extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    with pytest.raises(WeightsError, match=r"model\.layers\.0\.attn\.extra does not belong"):
        rwkv7.load(tmp_path / "more.safetensors")
    fewer = hugged(tensors)
    del fewer["model.layers.1.attn.w_lora.lora.2.bias"]
    save_file(fewer, tmp_path / "fewer.safetensors")
    with pytest.raises(WeightsError, match=r"blocks\.1\.att\.w0 of shape \[64\] is missing"):
        rwkv7.load(tmp_path / "fewer.safetensors")
