"""`ssmprov models check`: what it finds in model files, and the sentences for files that are none. No broker runs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asm_toys import KINDS, asm_file, asm_model
from cli_runner import Run, runner
from cluster import TINY, Cluster

from models import asm, mini, rwkv7
from ssmprov import configuration
from ssmprov.errors import BadRequest, SsmprovError
from workers import check as child
from workers.cli_models import lines, run, runtime_for
from workers.families import default_set
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


@pytest.mark.parametrize(
    ("name", "contents", "words"),
    [
        ("none.pth", None, "there is no such file"),
        ("text.pth", b"hello", "damaged, cut short or in another format"),
        ("text.safetensors", b"hello", "damaged, cut short or in another format"),
        ("empty.safetensors", b"", "damaged, cut short or in another format"),
        ("cut.safetensors", mini.path().read_bytes()[:1_000_000], "damaged, cut short or in another format"),
        ("notes.txt", b"hello", "not named like a model file"),
    ],
)
def test_what_is_no_model_is_told_in_a_sentence(
    alone: Run, tmp_path: Path, name: str, contents: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if contents is not None:
        path.write_bytes(contents)
    done = alone("models", "check", str(path), "--json")
    refused(done, words)
    assert str(path) in done.stderr


def test_a_directory_is_no_file(alone: Run, tmp_path: Path) -> None:
    refused(alone("models", "check", str(tmp_path)), "this is not a file")


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


def test_the_runtime_can_be_chosen_and_wrong_words_are_usage(alone: Run) -> None:
    refused(alone("models", "check", "--runtime", "llama", str(mini.path())), "")
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
        ("mamba", "mamba", ""),
        ("mamba2", "mamba2", ""),
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
        "",
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
        assert runtime_for(other) == "rwkv"
        assert runtime_for(asm_file(tmp_path, f"addressed{suffix}")) == "asm"
        other.write_bytes(other.read_bytes()[:1000])
        assert runtime_for(other) == "rwkv"
    assert [runtime_for(Path(name)) for name in ("@mini", "@asm-mini")] == ["rwkv", "asm"]
    asm.save_checkpoint(asm_model(), tmp_path / "x.pt")
    assert runtime_for(tmp_path / "x.pt") == "asm"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: data[:-1000], "the file is cut short"),
        (lambda data: data[:2000], "the file is cut short"),
        (lambda _data: b"", "this is not a GGUF file"),
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


def test_default_sets_are_those_that_ship() -> None:
    assert [default_set(family) for family in ("rwkv7", "falcon-mamba", "mini", "llama", "mamba", "")] == [
        "rwkv7",
        "falcon-mamba",
        "mini",
        "",
        "",
        "",
    ]
