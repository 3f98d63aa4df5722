"""`ssmprov models check`: what it finds in model files, and the sentences for files that are none. No broker runs."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from asm_toys import KINDS, asm_file, asm_model
from cli_runner import Run, runner
from cluster import TINY, Cluster

from models import asm, mini, rwkv7
from ssmprov import configuration
from ssmprov.errors import BadRequest, SsmprovError
from ssmprov.settings import Sets
from workers import check as child
from workers.cli_models import lines, run
from workers.families import DEFAULT_SETS, default_set, set_of
from workers.model_files import model_file, recognised
from workers.runtimes.base import Plan, load

Toy = Callable[..., Path]


@pytest.fixture
def alone(tmp_path: Path) -> Run:
    """The command line in a working directory where nothing is served."""
    return runner(Cluster(tmp_path / "home", ""))


@pytest.fixture
def gguf(tmp_path: Path) -> Toy:
    """Writes a tiny GGUF of some kind."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed")
    import gguf_toys

    def write(kind: str, name: str = "toy.gguf", **options: Any) -> Path:
        path: Path = gguf_toys.write(kind, tmp_path / name, **options)
        return path

    return write


def found(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(done: subprocess.CompletedProcess[str], words: str) -> None:
    """One line on stderr, nothing on stdout, exit code 1."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


def serves(report: Any, home: Path) -> configuration.ModelTable:
    """The table of a report, put into a configuration and read back."""
    (home / "pasted.toml").write_text(report["toml"], encoding="utf-8")
    [table] = configuration.load(home / "pasted.toml", home).tables.model
    return table


def test_the_embedded_model(alone: Run, tmp_path: Path) -> None:
    report = found(alone("models", "check", str(mini.path()), "--json"))
    assert (report["architecture"], report["family"], report["settings"]) == ("rwkv7", "mini", "mini")
    assert (report["runtime"], report["name"], report["parameters"]) == ("rwkv", "rwkv7-mini", 1_257_984)
    assert (report["layers"], report["embedding"], report["vocabulary"]) == (5, 128, 257)
    assert report["file_bytes"] == mini.path().stat().st_size
    assert report["fingerprint"] == rwkv7.fingerprint(mini.path())
    assert (report["state_bytes"], report["token_bytes"], report["context_tokens"]) == (168_960, 0, None)
    assert (report["text_exact"], report["text_lost"], report["restores"]) == (True, [], True)
    assert min(report["load_s"], report["prefill_per_s"], report["decode_per_s"]) > 0
    assert report["slots_that_fit"] is None or report["slots_that_fit"] >= 1
    table = serves(report, tmp_path)
    assert (table.name, table.runtime, table.path) == ("rwkv7-mini", "rwkv", str(mini.path()))
    assert (table.settings, table.workers, table.slots) == ("mini", 1, 8)


def test_what_people_read_ends_with_the_table(alone: Run) -> None:
    done = alone("models", "check", "@mini")
    assert (done.returncode, done.stderr) == (0, "")
    shown, _, table = done.stdout.partition("\n\n")
    keys = [line.split()[0] for line in shown.splitlines()]
    assert keys == [
        *("model", "file", "parameters", "shape", "tokenizer", "text", "state", "fingerprint", "settings"),
        *("memory", "loads", "speed", "restores"),
    ]
    assert "165.0 KiB for each context, however long" in shown
    assert table.startswith('[[model]]\nname = "rwkv7-mini"\nruntime = "rwkv"\npath = "@mini"\n')


def test_an_official_file_of_its_own_family_and_dtype(alone: Run, tmp_path: Path) -> None:
    path = tmp_path / "My model (v1).pth"
    rwkv7.save(rwkv7.random_tensors(TINY, 1), path)
    report = found(alone("models", "check", str(path), "--dtype", "bf16", "--json"))
    assert (report["family"], report["settings"], report["dtype"]) == ("rwkv7", "rwkv7", "bf16")
    table = serves(report, tmp_path)
    assert (table.name, table.path, table.dtype) == ("my-model-v1", str(path), "bf16")


def torch_file(value: object, *, legacy: bool = False) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return stream.getvalue()


def tensors_file(*names: str, metadata: dict[str, str] | None = None) -> bytes:
    return safetensors.torch.save({name: torch.zeros(2, 2) for name in names}, metadata)


def named(*names: str) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(2, 2) for name in names}


MINI = mini.path().read_bytes()
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xd7\x02" + b"\0" * 64
V6 = ("blocks.0.att.time_maa_x", "blocks.0.att.time_decay", "blocks.0.att.ln_x.weight", "emb.weight")
V5 = ("blocks.0.att.time_faaaa", "blocks.0.att.time_decay", "blocks.0.att.ln_x.weight", "emb.weight")
V4 = ("blocks.0.att.time_mix_k", "blocks.0.att.time_decay", "blocks.0.att.time_first", "emb.weight")
FOREIGN: dict[str, tuple[str, bytes | None, str]] = {
    "none.pth": ("missing", None, "there is no such file"),
    "empty.safetensors": ("empty", b"", "download it again"),
    "text.pth": ("damaged", b"hello", "download it again"),
    "text.SafeTensors": ("damaged", b"hello", "download it again"),
    "notes.txt": ("unknown", b"hello", "it serves GGUF files, RWKV-7 weights"),
    "pointer.GGUF": (
        "lfs_pointer",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "`git lfs pull`",
    ),
    "annex.pth": ("annex_pointer", b"/annex/objects/SHA256E-s1--00.pth\n", "git annex get"),
    "page.pth": ("html", b"\n<!DOCTYPE html>\n<html class=''>", "/resolve/ instead of /blob/"),
    "page.gguf": ("html", b"<HTML><body>404", "hf download"),
    "denied.gguf": ("message", b"Invalid username or password.", "hf auth login"),
    "absent.gguf": ("message", b"Entry not found", "check the names"),
    "cut.safetensors": ("cut", MINI[:1_000_000], "download it again"),
    "header.safetensors": ("cut", MINI[:1000], "download it again"),
    "cut.PTH": ("cut", torch_file(named("emb.weight"))[:-30], "download it again"),
    "cut-legacy.pth": ("cut", torch_file(named("emb.weight"), legacy=True)[:200], "download it again"),
    "half.gguf.part": ("cut", b"\0" * 100, "download it again"),
    "model.tar.gz": ("packed", b"\x1f\x8b\x08\0", "unpack it"),
    "slot.bin": ("llama_slot", b"qsgg\x02\0\0\0" + b"\0" * 64, "let the model read the text again"),
    "old.bin": ("ggml", b"tjgg\x03\0\0\0", "get a GGUF"),
    "model.onnx": ("onnx", ONNX, "does not serve"),
    "adapter.safetensors": (
        "adapter",
        tensors_file("base_model.model.model.layers.0.attn.r_proj.lora_A.weight"),
        "merge it into its base model",
    ),
    "lora.pth": ("adapter", torch_file(named("blocks.0.att.receptance.lora_A")), "merge it into its base model"),
    "tuned.pth": ("tuned_state", torch_file(named("blocks.0.att.time_state")), "serve its base model"),
    "state.pth": ("rwkv_state", torch_file([torch.zeros(2), torch.zeros(2)]), "let the model read the text again"),
    "v6.pth": ("rwkv_older", torch_file(named(*V6)), "this is an RWKV-6 model"),
    "v5.safetensors": ("rwkv_older", tensors_file(*V5), "this is an RWKV-5 model"),
    "v4.pth": ("rwkv_older", torch_file(named(*V4), legacy=True), "this is an RWKV-4 model"),
    "llama.safetensors": ("transformers", tensors_file("model.embed_tokens.weight"), "convert_hf_to_gguf.py"),
    "optimizer.pt": ("training", torch_file({"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}), "export"),
    "other.safetensors": ("other_model", tensors_file("conv.weight"), "served as GGUF files"),
    "pickle.pth": ("pickle", pickle.dumps({"a": 1}), "never runs a pickle"),
    "state.safetensors": ("state_file", tensors_file("x", metadata={"format": "ssmprov.state.v1"}), "ckpt import"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_cannot_be_served_is_told_with_what_to_do(tmp_path: Path, name: str) -> None:
    code, contents, words = FOREIGN[name]
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    for runtime in ("", "rwkv", "llama", "asm"):
        with pytest.raises(BadRequest) as caught:
            model_file(path, runtime) if runtime else recognised(path)
        assert caught.value.details == {"kind": code}
        assert caught.value.message.startswith(f"{path}: ")
        assert words in caught.value.message
        assert "weights_only" not in caught.value.message


@pytest.mark.parametrize("name", ["page.gguf", "cut.PTH"])
def test_the_command_says_it_in_one_line(alone: Run, tmp_path: Path, name: str) -> None:
    _, contents, words = FOREIGN[name]
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    done = alone("models", "check", str(path), "--json")
    refused(done, words)
    assert str(path) in done.stderr


def test_code_in_a_torch_file_is_never_run_nor_recommended(alone: Run, tmp_path: Path) -> None:
    path = tmp_path / "code.pth"
    path.write_bytes(torch_file({**rwkv7.random_tensors(TINY, 1), "run": subprocess.Popen}))
    done = alone("models", "check", str(path))
    refused(done, "it holds more than tensors")
    assert "weights_only" not in done.stderr


def test_a_file_of_another_runtime_names_its_own(alone: Run, tmp_path: Path) -> None:
    path = tmp_path / "MODEL.GGUF"
    path.write_bytes(b"GGUF")
    refused(alone("models", "check", "--runtime", "rwkv", str(path)), 'write runtime = "llama"')
    for runtime in ("llama", "asm"):
        with pytest.raises(BadRequest, match='write runtime = "rwkv"'):
            model_file(mini.path(), runtime)


def test_a_directory_means_the_one_model_in_it(alone: Run, tmp_path: Path) -> None:
    folder = tmp_path / "My-0.1B"
    folder.mkdir()
    with pytest.raises(BadRequest, match="a directory without a model file"):
        recognised(folder)
    rwkv7.save(rwkv7.random_tensors(TINY, 1), folder / "official.pth")
    report = found(alone("models", "check", str(folder), "--json"))
    assert (report["name"], report["path"]) == ("official", str(folder / "official.pth"))
    (folder / "official.pth").rename(folder / "first.pth")
    rwkv7.save(rwkv7.random_tensors(TINY, 2), folder / "second.safetensors")
    with pytest.raises(BadRequest, match=r"name one of first\.pth, second\.safetensors"):
        recognised(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BadRequest, match="this is a LoRA adapter"):
        recognised(folder)


@pytest.mark.parametrize("name", ["MODEL.PTH", "Model.SafeTensors", "legacy.pth"])
def test_a_file_is_known_by_its_bytes_and_not_by_its_name(alone: Run, tmp_path: Path, name: str) -> None:
    path, plain = tmp_path / name, tmp_path / "plain.safetensors"
    tensors = rwkv7.random_tensors(TINY, 1)
    rwkv7.save(tensors, plain)
    if name.endswith("Tensors"):
        plain.rename(path)
    else:
        path.write_bytes(torch_file(tensors, legacy=name.startswith("legacy")))
    report = found(alone("models", "check", str(path), "--json"))
    assert (report["runtime"], report["family"], report["restores"]) == ("rwkv", "rwkv7", True)


def test_another_architecture_is_named(alone: Run, tmp_path: Path) -> None:
    tensors = rwkv7.random_tensors(TINY, 1)
    path = tmp_path / "other.pth"
    rwkv7.save({name: tensor for name, tensor in tensors.items() if "att.r_k" not in name}, path)
    refused(alone("models", "check", str(path)), "is this an RWKV-7 (x070) model?")


def test_weights_that_are_no_numbers_are_found(alone: Run, tmp_path: Path) -> None:
    tensors = dict(rwkv7.random_tensors(TINY, 1))
    tensors["head.weight"] = tensors["head.weight"] * float("nan")
    rwkv7.save(tensors, tmp_path / "nan.pth")
    refused(alone("models", "check", str(tmp_path / "nan.pth")), "computes NaN or infinity")


def test_wrong_words_are_usage(alone: Run) -> None:
    for words in (["chekc"], ["check"], ["check", "--runtime", "scripted", "@mini"]):
        done = alone("models", *words)
        assert (done.returncode, done.stdout) == (2, "")


def test_without_a_subcommand_it_still_lists_what_is_served(ssmprov: Run) -> None:
    assert [model["name"] for model in found(ssmprov("models", "--json"))] == ["talk"]
    listed = ssmprov("models")
    assert listed.stdout.startswith("MODEL  RUNTIME ")


@pytest.mark.parametrize(
    ("kind", "architecture", "settings"),
    [
        ("rwkv7", "rwkv7", "rwkv7"),
        ("mamba", "mamba", "general"),
        ("mamba2", "mamba2", "general"),
        ("falcon-mamba", "mamba", "falcon-mamba"),
    ],
)
def test_a_recurrent_gguf(alone: Run, gguf: Toy, tmp_path: Path, kind: str, architecture: str, settings: str) -> None:
    report = found(alone("models", "check", str(gguf(kind)), "--json"))
    assert (report["runtime"], report["architecture"], report["family"]) == ("llama", architecture, kind)
    assert (report["settings"], report["context_tokens"], report["n_ctx"], report["token_bytes"]) == (
        settings,
        None,
        None,
        0,
    )
    assert report["state_bytes"] > 0
    assert (report["text_exact"], report["restores"]) == (True, True)
    table = serves(report, tmp_path)
    assert (table.name, table.runtime, table.settings, table.options) == (f"toy-{kind}-0", "llama", settings, {})


def test_a_transformer_counts_its_state_by_tokens(alone: Run, gguf: Toy, tmp_path: Path) -> None:
    report = found(alone("models", "check", str(gguf("llama", quantize="q8_0")), "--json"))
    assert "Q8_0" in report["quantization"]
    assert report["context_tokens"] == report["n_ctx"] == 4096
    assert report["token_bytes"] > 0
    assert report["state_bytes"] >= 4096 * report["token_bytes"] * 0.9
    assert serves(report, tmp_path).options == {"n_ctx": 4096}


def test_an_asm_is_known_by_its_tensors_and_served_as_it_was_checked(alone: Run, tmp_path: Path) -> None:
    path = asm_file(tmp_path, "addressed.pth", **KINDS["chunked"])
    report = found(alone("models", "check", str(path), "--scan", "chunked:4", "--pos-mode", "cyclic", "--json"))
    assert (report["runtime"], report["architecture"], report["family"], report["settings"]) == (
        "asm",
        "asm",
        "asm",
        "greedy",
    )
    assert (report["layers"], report["embedding"], report["vocabulary"], report["tokenizer"]) == (2, 16, 257, "bytes")
    assert report["parameters"] == sum(p.numel() for p in asm_model(**KINDS["chunked"]).parameters())
    assert "chunked:4 cyclic:2048" in report["layout"]
    assert (report["context_tokens"], report["token_bytes"], report["restores"]) == (None, 0, True)
    table = serves(report, tmp_path)
    assert (table.runtime, table.path, table.options) == ("asm", str(path), {"scan": "chunked:4", "pos_mode": "cyclic"})


def test_an_asm_whose_contexts_end_is_tried_within_them(tmp_path: Path) -> None:
    path = asm_file(tmp_path, max_seq_len=21)
    report = child.check("asm", Plan(path=path, slots=1))
    assert (report.context_tokens, report.n_ctx, report.token_bytes, report.restores) == (21, None, 0, True)
    assert dict(lines(report, path))["state"].endswith("for each context of at most 21 tokens")


def test_files_are_told_apart_by_what_is_in_them(tmp_path: Path) -> None:
    for suffix in (".safetensors", ".pth"):
        other = tmp_path / f"other{suffix}"
        rwkv7.save(rwkv7.random_tensors(TINY, 1), other)
        assert recognised(other)[1].runtimes == ("rwkv",)
        assert recognised(asm_file(tmp_path, f"addressed{suffix}"))[1].runtimes == ("asm",)
    asm.save_checkpoint(asm_model(), tmp_path / "x.pt")
    assert recognised(tmp_path / "x.pt")[1].runtimes == ("asm",)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1000], "the file is cut short"),
        (lambda data: data[:2000], "the file is cut short"),
        (lambda _data: b"", "the file is empty"),
        (lambda data: data.replace(b"mamba2", b"mambaX"), "unknown model architecture: 'mambaX'"),
        (lambda data: data[:-5000] + b"\xff" * 2000 + data[-3000:], "computes NaN or infinity"),
    ],
)
def test_a_spoilt_gguf_is_told_in_a_sentence(
    alone: Run, gguf: Toy, spoil: Callable[[bytes], bytes], words: str
) -> None:
    path = gguf("mamba2")
    path.write_bytes(spoil(path.read_bytes()))
    refused(alone("models", "check", str(path)), words)


def test_a_library_that_dies_is_told_in_a_sentence(alone: Run, gguf: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp aborts the process over a norm in double precision, and over nothing that the file says before."""
    import gguf as library
    import gguf_toys

    add = gguf_toys._Toy.add

    def wide(toy: Any, name: str, values: Any, **options: Any) -> None:
        if name.endswith("attn_norm.weight"):
            toy.writer.add_tensor(name, values.astype("f8"), raw_dtype=library.GGMLQuantizationType.F64)
        else:
            add(toy, name, values, **options)

    monkeypatch.setattr(gguf_toys._Toy, "add", wide)
    refused(alone("models", "check", str(gguf("mamba"))), "a library crashed on it (SIGABRT)")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", r"x\.gguf: a library crashed on it \(SIGABRT\)"),
        ("import os; os.kill(os.getpid(), 4)", "built for another processor"),
        ("import os; os.kill(os.getpid(), 9)", "the memory ran out"),
        ("print('{'); raise MemoryError", "exit status 1: MemoryError"),
        ("import sys; print('noise'); sys.exit(0)", "exit status 0"),
    ],
)
def test_each_death_of_the_child_has_its_sentence(program: str, words: str) -> None:
    with pytest.raises(SsmprovError, match=words):
        run([sys.executable, "-P", "-c", program], Path("x.gguf"))


def test_a_tokenizer_that_loses_text_is_told() -> None:
    runtime = load("rwkv", Plan(path=mini.path(), slots=1))
    assert all(child.comes_back(runtime, sample) for sample in child.SAMPLES)
    runtime.tokenize = lambda text: [1 + byte for byte in text.strip().encode()]  # type: ignore[method-assign]
    lost = [sample for sample in child.SAMPLES if not child.comes_back(runtime, sample)]
    assert 0 < len(lost) < len(child.SAMPLES)

    def deaf(_text: str) -> list[int]:
        raise BadRequest("no")

    runtime.tokenize = deaf  # type: ignore[method-assign]
    assert not child.comes_back(runtime, "x")


def test_too_little_memory_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "free_memory", lambda: 1 << 20)
    monkeypatch.delattr(child.base, "load")
    with pytest.raises(BadRequest, match="needs 4 MiB for its weights, but only 1 MiB of memory are free"):
        child.check("rwkv", Plan(path=mini.path(), slots=1))


def test_room_for_slots() -> None:
    assert child.slots_that_fit(1000, 400, 100) == 6
    assert child.slots_that_fit(1000, 4000, 100) == 1
    assert child.slots_that_fit(1000, 400, 0) == 501
    assert child.slots_that_fit(None, 400, 100) is None
    assert child.slots_that_fit(1000, None, 100) is None


def test_every_family_has_a_set_that_ships_and_cuts() -> None:
    families = [*(DEFAULT_SETS.keys() - {"scripted"}), "llama", "mamba", "mamba2", "gemma2", "jamba", "never seen", ""]
    for family in families:
        settings = Sets(None, default_set(family)).default()
        cut = settings.top_k > 0 or settings.top_p < 1 or settings.min_p > 0
        assert settings.temp == 0 or (settings.temp < 1 and cut), family
    chosen = {family: default_set(family) for family in families}
    assert (chosen["rwkv7"], chosen["falcon-mamba"], chosen["mini"], chosen["asm"]) == (
        *("rwkv7", "falcon-mamba", "mini"),
        "greedy",
    )
    assert set_of("llama", "SmolLM2 135M Instruct") == set_of("llama", "smollm2-1.7b") == "smollm2"
    assert set_of("llama", "Llama 3") == chosen["llama"] == "general"
