"""Opening an ASM: what its file, its table and its vocabulary must be, and sentences for what they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asm_toys import asm_file, asm_model
from plans import plan_of
from safetensors.torch import save_file

from models import mini
from ssmprov.errors import BadRequest, NotFound, Unsupported
from workers.runtimes import llama, rwkv
from workers.runtimes.asm import open_runtime
from workers.runtimes.base import Feed

LEGACY = (("token_emb.", "tok."), ("ln_f.", "norm."), (".ln_1.", ".norm1."), (".ln_2.", ".norm2."), (".attn.", ".asa."))


def opened(path: Path, **options: Any) -> Any:
    return open_runtime(plan_of(path, **options))


def published(folder: Path, name: str = "final.pt", **without: Any) -> Path:
    """A file as the public code leaves it: the notebooks' names, and a configuration that knows no scan."""
    model = asm_model(mlp_bias=False, write_chunk_size=8)
    tensors = {}
    for key, tensor in model.state_dict().items():
        for ours, theirs in LEGACY:
            key = key.replace(ours, theirs)
        tensors[key] = tensor.clone()
    config = {k: v for k, v in model.config.to_mapping().items() if k not in ("scan", "pos_mode", "mlp_bias")}
    torch.save({"model_state_dict": tensors, "cfg": config | without}, folder / name)
    return folder / name


def test_identity_and_size_are_of_the_model_and_not_of_the_file(tmp_path: Path) -> None:
    runtime = opened(asm_file(tmp_path))
    layout = "asm L2 C16 H2 K5 M6 exact absolute:2048"
    assert (runtime.identity.architecture, runtime.identity.layout, runtime.identity.dtype) == ("asm", layout, "fp32")
    assert (runtime.vocabulary, runtime.end_tokens, runtime.control_tokens) == (257, {0}, frozenset())
    assert b"".join(map(runtime.piece, runtime.tokenize("Grüße"))).decode() == "Grüße"
    trained_elsewhere = {"learning_rate": 1.0, "dropout": 0.5, "tag": "b", "write_chunk_size": 7}
    for path in (asm_file(tmp_path, "tiny.pth"), asm_file(tmp_path, "b.safetensors", **trained_elsewhere)):
        assert opened(path).identity == runtime.identity
    changed: list[dict[str, Any]] = [
        {"seed": 6}, {"pos_mode": "cyclic"}, {"scan": "chunked:8"}, {"read_temperature": 2.0}, {"num_heads": 4},
        {"tie_weights": True}, {"rope_base": 100.0}, {"max_seq_len": 1024}, {"use_alibi_write": False},
    ]  # fmt: skip
    found = [opened(asm_file(tmp_path, f"{i}.safetensors", **o)).identity for i, o in enumerate(changed)]
    assert len({identity.fingerprint for identity in (runtime.identity, *found)}) == 1 + len(changed)


def test_published_weights_need_their_scan_in_the_table(tmp_path: Path) -> None:
    path = published(tmp_path)
    with pytest.raises(BadRequest, match=r'final\.pt: .*does not name the scan: set scan = "chunked:8"'):
        opened(path)
    chunked, exact = opened(path, scan="chunked:8"), opened(path, scan="exact", pos_mode="cyclic")
    assert "chunked:8 absolute:2048" in chunked.identity.layout
    assert "exact cyclic:2048" in exact.identity.layout
    assert (chunked.context_tokens, exact.context_tokens) == (2048, None)
    tokens = chunked.tokenize("a text that is longer than one write chunk")
    rows = [runtime.forward([Feed(0, tokens)])[0] for runtime in (chunked, exact)]
    with torch.no_grad():
        wanted = asm_model(mlp_bias=False, scan="chunked:8")(torch.tensor([tokens]), last_logits=True)[0][0].numpy()
    assert np.allclose(rows[0], wanted, atol=1e-4)
    assert not np.allclose(rows[1], wanted, atol=1e-1)


def test_the_name_of_the_embedded_model_is_told_where_it_is_or_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "asm_path", lambda: tmp_path / "tiny.safetensors", raising=False)
    with pytest.raises(NotFound, match="comes without an ASM"):
        opened(Path("@asm-mini"))
    assert opened(asm_file(tmp_path)).identity == opened(Path("@asm-mini")).identity


def test_a_vocabulary_without_a_tokenizer_is_refused_with_those_that_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asm_file(tmp_path, "gpt2.safetensors", vocab_size=300, tokenizer_name="gpt2", num_layers=1)
    with pytest.raises(BadRequest, match=r"gpt2\.safetensors: .*vocabulary of 300 .*'gpt2'.*bytes \(257\).*World"):
        opened(path)
    small = {"num_layers": 1, "embed_dim": 4, "num_heads": 1, "num_slots": 2, "slotspace_dim": 2}
    world = opened(asm_file(tmp_path, "world.safetensors", vocab_size=65536, **small))
    assert world.control_tokens == frozenset(range(65530, 65536))
    assert world.forward([Feed(0, [65529])]).shape == (1, 65536)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Unsupported, match=r"world\.safetensors: .*install ssmprov\[rwkv\]"):
        opened(tmp_path / "world.safetensors")


def test_what_a_file_lacks_or_has_too_much_is_told_by_its_name(tmp_path: Path) -> None:
    model = asm_model()
    tensors = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    config = json.dumps(model.config.to_mapping())
    faults: dict[str, tuple[Any, dict[str, str]]] = {
        "missing": ({k: v for k, v in tensors.items() if "slot_keys" not in k}, {"cfg": config}),
        "more": ({**tensors, "kv": torch.zeros(1)}, {"cfg": config}),
        "nan": ({**tensors, "ln_f.weight": tensors["ln_f.weight"] * float("nan")}, {"cfg": config}),
        "odd": (tensors, {"cfg": json.dumps({**json.loads(config), "slotspace_dim": 7})}),
        "bare": (tensors, {}),
        "field": (tensors, {"cfg": json.dumps({**json.loads(config), "slots": 3})}),
    }
    for name, (given, metadata) in faults.items():
        path = tmp_path / f"{name}.safetensors"
        save_file(given, path, metadata=metadata)
        with pytest.raises(BadRequest, match=rf"{name}\.safetensors"):
            opened(path)
    for name in ("gone.safetensors", "wrong.bin"):
        with pytest.raises(BadRequest, match=name):
            opened(tmp_path / name)
    cut = asm_file(tmp_path, "cut.safetensors")
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(BadRequest, match=r"cut\.safetensors: the file is cut short"):
        opened(cut)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dtype": "fp8"}, "dtype must be one of fp32, bf16, fp16, not 'fp8'"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"quantize": "int8"}, "unknown key 'quantize'.*the runtime asm takes threads, scan, pos_mode"),
        ({"prefill_dtype": "bf16"}, "unknown key 'prefill_dtype'"),
        ({"n_ctx": 64}, "unknown key 'n_ctx'"),
        ({"scan": "both"}, "scan must be exact, chunked"),
        ({"pos_mode": "wild"}, "pos_mode must be one of absolute, cyclic, not 'wild'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        opened(asm_file(tmp_path), **options)


def test_half_precision_wants_a_state_in_single(tmp_path: Path) -> None:
    path = asm_file(tmp_path, "half.safetensors", state_fp32=False)
    with pytest.raises(BadRequest, match="state_fp32"):
        opened(path, dtype="bf16")
    assert opened(path).identity == opened(asm_file(tmp_path)).identity


@pytest.mark.parametrize("key", ["scan", "pos_mode"])
def test_other_runtimes_refuse_the_keys_of_this_one(key: str) -> None:
    with pytest.raises(BadRequest, match=f"unknown key '{key}'.*the runtime rwkv takes threads, prefill_dtype, quan"):
        rwkv.open_runtime(plan_of(Path("@mini"), **{key: "exact"}))
    pytest.importorskip("llama_cpp")
    with pytest.raises(BadRequest, match=f"unknown key '{key}'.*the runtime llama takes n_threads, n_batch, n_ctx"):
        llama.open_runtime(plan_of(Path("x.gguf"), **{key: "exact"}))
