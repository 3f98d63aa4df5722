"""Files from elsewhere, through real processes: RWKV-7 in Hugging Face's layout is served, other files are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cluster import TINY, Cluster, rwkv_toml
from rwkv_hf import hugged, written

from models import rwkv7
from ssmprov.errors import BadRequest
from workers.check import check
from workers.cli_models import toml_table
from workers.runtimes.base import Plan

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
SLOT = b"qsgg\x02\0\0\0" + b"\0" * 64


def table(name: str, path: Path) -> str:
    return f'[[model]]\nname = "{name}"\nruntime = "rwkv"\npath = {json.dumps(str(path))}\n'


def test_both_layouts_say_the_same_and_foreign_files_are_not_imported(
    make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    official = rwkv_toml(tmp_path / "models")
    folder = written(tmp_path / "RWKV7-Tiny-HF", hugged(rwkv7.random_tensors(TINY, 1)))
    pasted = toml_table(check("rwkv", Plan(path=folder, slots=1)), folder, {})
    with make_cluster(official + pasted).up().client() as client:
        models = ("tiny", "rwkv7-tiny-hf")
        said = [client.turn("Once", model=name, values={"temp": 0}, max_tokens=40) for name in models]
        assert said[0].text == said[1].text
        for name, content, kind in (
            ("slot.bin", SLOT, "llama_slot"),
            ("model.gguf", b"GGUF\x03\0\0\0", "gguf"),
            ("tiny.pth", (tmp_path / "models" / "tiny.pth").read_bytes(), "rwkv7"),
            ("page", b"<!DOCTYPE html>", "html"),
        ):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BadRequest) as caught:
                client.import_(tmp_path / name, "foreign", model="tiny")
            assert caught.value.details["kind"] == kind
            assert "ckpt import" in caught.value.message or kind == "html"


def test_up_says_what_a_file_is(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    (tmp_path / "pointer.pth").write_bytes(POINTER)
    cluster = make_cluster(table("bad", tmp_path / "pointer.pth"))
    cluster.environment.pop("SSMPROV_SUPERVISED")
    up = cluster.start("up", "-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up")
    up.expect(r"pointer\.pth: this is a Git LFS pointer.*git lfs pull")
