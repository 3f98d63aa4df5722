"""`ssmprov convert`: what it writes and prints, and what it refuses."""

from __future__ import annotations

import builtins
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssmprov.main import main

pytest.importorskip("gguf")
pytest.importorskip("torch")

from models import gguf, mini

PROGRAM = str(Path(sys.executable).with_name("ssmprov"))


def refused(capsys: pytest.CaptureFixture[str], words: list[str], code: int, message: str) -> None:
    assert main(["convert", *words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ssmprov: ")
    assert message in err.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "label"), [([], "Q8_0"), (["--type", "f16"], "F16"), (["--type", "f32"], "F32")], ids=str
)
def test_a_model_is_written_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], label: str
) -> None:
    out = tmp_path / "mini.gguf"
    assert main(["convert", "@mini", str(out), *options]) == 0
    found = gguf.describe(out)
    assert (found.architecture, found.label, found.name) == ("rwkv7", label, "rwkv7-mini")
    printed, err = capsys.readouterr()
    size = f"{out.stat().st_size / 1e6:.1f} MB"
    assert printed == f"{out}: {size}, {label.lower()}, fingerprint {gguf.fingerprint(out)}\n"
    assert err == ""  # no terminal, no bar


def test_the_same_as_json_from_a_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mini.gguf"
    assert main(["convert", str(mini.path()), str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "path": str(out),
        "type": "q8_0",
        "bytes": out.stat().st_size,
        "fingerprint": gguf.fingerprint(out),
    }


def test_an_existing_file_stands_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mini.gguf"
    out.write_bytes(b"precious")
    refused(capsys, ["@mini", str(out)], 5, "exists: replace it with --force")
    assert out.read_bytes() == b"precious"
    assert main(["convert", "@mini", str(out), "--force"]) == 0
    assert gguf.describe(out).architecture == "rwkv7"


@pytest.mark.parametrize(
    ("model", "out", "code", "message"),
    [
        ("nowhere.pth", "a.gguf", 4, "there is no file nowhere.pth"),
        ("@mini", "a.bin", 2, "must end in .gguf"),
        ("@mini", "nowhere/a.gguf", 4, "there is no directory"),
        ("@mini", "folder.gguf", 1, "is a directory"),
        ("words.txt", "a.gguf", 1, "this is not a model file that ssmprov knows"),
        ("broken.pth", "a.gguf", 1, "broken.pth: the file is cut short"),
        ("other.safetensors", "a.gguf", 1, "is this an RWKV-7 (x070) model?"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    out: str,
    code: int,
    message: str,
) -> None:
    import torch
    from safetensors.torch import save_file

    monkeypatch.chdir(tmp_path)
    Path("folder.gguf").mkdir()
    Path("words.txt").write_text("words")
    Path("broken.pth").write_bytes(b"PK\x03\x04 not much")
    save_file({"weight": torch.zeros(3)}, "other.safetensors")
    before = sorted(tmp_path.iterdir())
    refused(capsys, [model, out], code, message)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("module", "remedy"), [("gguf", "run `make llama`, or install ssmprov[llama]"), ("torch", "install ssmprov[rwkv]")]
)
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, module: str, remedy: str
) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "models":
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    message = f"`ssmprov convert` needs the Python module {module!r}, which is not installed: {remedy}"
    refused(capsys, ["@mini", str(tmp_path / "a.gguf")], 1, message)


@pytest.mark.parametrize("blocks", [0, 1, 1000])
def test_a_full_disk_keeps_nothing(tmp_path: Path, blocks: int) -> None:
    """A limit on the size of files fails as a full disk does: at the header, in its midst, among the tensors."""
    out = tmp_path / "mini.gguf"
    command = f"ulimit -f {blocks}; exec {shlex.quote(PROGRAM)} convert @mini {shlex.quote(str(out))} --type f32"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    why = "it has reached the size limit for files. Raise the limit (`ulimit -f`)"
    assert done.stderr == f"ssmprov: {out} was not written: {why}\n"
    assert list(tmp_path.iterdir()) == []
