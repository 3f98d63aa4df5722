"""Files: what is read, what is refused and in which words, and the fingerprint."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import rwkv7
from models.rwkv7 import Config, WeightsError


@pytest.fixture
def tensors(config: Config) -> dict[str, Tensor]:
    return rwkv7.random_tensors(config, seed=1)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_gives_its_config_back(tmp_path: Path, config: Config, tensors: dict[str, Tensor], suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    rwkv7.save(tensors, path)
    assert rwkv7.load(path).config == config


def test_axes_of_length_one_may_be_written_or_left_out(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """The official files hold x_r, w0 and the like as [1,1,C]."""
    plain, official = tmp_path / "plain.pth", tmp_path / "official.pth"
    rwkv7.save(tensors, plain)
    vectors = ("x_r", "x_w", "x_k", "x_v", "x_a", "x_g", "w0", "a0", "v0", "k_k", "k_a")
    rwkv7.save({n: t.view(1, 1, -1) if n.endswith(vectors) else t for n, t in tensors.items()}, official)
    found = []
    for path in (plain, official):
        weights = rwkv7.load(path)
        found.append(rwkv7.forward(weights, torch.tensor([[5, 6, 7]]), None, rwkv7.new_state(weights.config, 1))[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["emb.weight", "head.weight", "blocks.1.att.v1", "blocks.2.ffn.value.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, tensors: dict[str, Tensor], name: str) -> None:
    path = tmp_path / "model.safetensors"
    rwkv7.save({n: t for n, t in tensors.items() if n != name}, path)
    with pytest.raises(WeightsError, match=rf"model\.safetensors: the tensor {name} .*missing"):
        rwkv7.load(path)


def test_a_wrong_shape_is_named_with_the_right_one(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "model.pth"
    rwkv7.save(tensors | {"blocks.1.att.key.weight": torch.zeros(128, 100)}, path)
    with pytest.raises(
        WeightsError, match=r"model\.pth: blocks\.1\.att\.key\.weight .*\[128, 128\], found \[128, 100\]"
    ):
        rwkv7.load(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_file_cut_short_is_refused(tmp_path: Path, tensors: dict[str, Tensor], suffix: str, kept: int) -> None:
    path = tmp_path / f"model{suffix}"
    rwkv7.save(tensors, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match="download it again"):
        rwkv7.load(path)


def test_a_pickle_with_code_is_refused_unrun(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

    path = tmp_path / "model.pth"
    torch.save({"emb.weight": Trap()}, path, pickle_module=pickle)
    with pytest.raises(WeightsError, match="more than tensors") as caught:
        rwkv7.load(path)
    assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.pth", "no such file"),
        ("list.pth", "a pickle of something else"),
    ],
)
def test_other_files_are_refused_in_plain_words(tmp_path: Path, name: str, words: str) -> None:
    if name != "nowhere.pth":
        torch.save([1, 2], tmp_path / name)
    with pytest.raises(WeightsError, match=words):
        rwkv7.load(tmp_path / name)


@pytest.mark.parametrize(("options", "words"), [({"dtype": "fp64"}, "dtype"), ({"quantize": "int4"}, "quantize")])
def test_unknown_options_are_refused(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        rwkv7.load(tmp_path / "any.pth", **options)  # type: ignore[arg-type]


def test_int8_is_refused_on_other_devices(tensors: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="int8 matrices run on the CPU"):
        rwkv7.assemble(tensors, device="meta", quantize="int8")


def test_saving_leaves_nothing_but_the_file(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    for name in ("model.pth", "model.safetensors"):
        rwkv7.save(tensors, tmp_path / name)
        rwkv7.save(tensors, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pth", "model.safetensors"]


def test_the_fingerprint_is_that_of_the_tensors_not_of_the_file(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    one, other, changed = tmp_path / "a.pth", tmp_path / "b.safetensors", tmp_path / "c.safetensors"
    tensors["emb.weight"] = tensors["emb.weight"].bfloat16()
    rwkv7.save(tensors, one)
    rwkv7.save(dict(reversed(tensors.items())), other)
    tensors["head.weight"][3, 4] += 1
    rwkv7.save(tensors, changed)
    assert rwkv7.fingerprint(one) == rwkv7.fingerprint(other) != rwkv7.fingerprint(changed)
    assert len(rwkv7.fingerprint(one)) == 64


def test_the_fingerprint_of_known_tensors_stays(tmp_path: Path) -> None:
    """Stored checkpoints name their model by it, so it may never change."""
    path = tmp_path / "known.safetensors"
    rwkv7.save({"b": torch.arange(3, dtype=torch.float32), "a": torch.ones(2, 2, dtype=torch.bfloat16)}, path)
    assert rwkv7.fingerprint(path) == "a21affe2971dfe2332268b2c05c9812d3526abd51aa90015d73e39a34e518607"
