"""Who a GGUF model is: what its fingerprint depends on, and when a remembered one still holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")

from gguf_files import METADATA, TENSORS, write, write_parts

from models import gguf
from models.gguf.header import read_header


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.gguf")


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return write_parts(tmp_path)


def test_the_fingerprint_of_known_content_stays(small: Path) -> None:
    """Stored checkpoints name their model by it, so it may never change."""
    assert gguf.fingerprint(small) == "8a4f22033cd34c7c910fe409b4a79342d270515cacfb9d1e9b9f1c62d9bb449e"


def test_neither_order_nor_description_is_part_of_the_identity(tmp_path: Path, small: Path) -> None:
    turned = {key: METADATA[key] for key in reversed(METADATA)}
    turned |= {"general.name": "other", "general.license": "MIT", "general.tags": ["x"], "general.file_type": 7}
    turned |= {"tokenizer.chat_template": "{{ other }}", "quantize.imatrix.file": "words.dat"}
    other = write(tmp_path / "other.gguf", metadata=turned)
    assert gguf.fingerprint(other) == gguf.fingerprint(small)


def test_the_order_of_tensors_is_no_part_of_the_identity(tmp_path: Path, small: Path) -> None:
    other = write(tmp_path / "other.gguf", tensors=dict(reversed(TENSORS.items())))
    assert [t.name for t in read_header(other).tensors] == [t.name for t in read_header(small).tensors][::-1]
    assert gguf.fingerprint(other) == gguf.fingerprint(small)


@pytest.mark.parametrize(
    "change",
    [
        {"mamba.ssm.state_size": 17},
        {"mamba.ssm.new": 1},
        {"tokenizer.ggml.tokens": ["<s>", "a", "c", "ä", ""]},
        {"tokenizer.ggml.pre": "smollm"},
        {"general.quantization_version": 3},
    ],
)
def test_hyperparameters_and_vocabulary_are_part_of_the_identity(
    tmp_path: Path, small: Path, change: dict[str, Any]
) -> None:
    assert gguf.fingerprint(write(tmp_path / "other.gguf", metadata=METADATA | change)) != gguf.fingerprint(small)


def test_every_byte_of_a_tensor_and_its_shape_are_part_of_the_identity(tmp_path: Path, small: Path) -> None:
    seen = {gguf.fingerprint(small)}
    whole = small.read_bytes()
    for place in read_header(small).tensors:
        for at in (place.start, place.start + place.nbytes - 1):
            other = tmp_path / "other.gguf"
            other.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            seen.add(gguf.fingerprint(other))
    turned = TENSORS["token_embd.weight"].reshape(8, 5)  # the same bytes
    seen.add(gguf.fingerprint(write(tmp_path / "shape.gguf", tensors=TENSORS | {"token_embd.weight": turned})))
    seen.add(gguf.fingerprint(write(tmp_path / "more.gguf", tensors=TENSORS | {"extra.weight": turned})))
    assert len(seen) == 9


def test_a_tensor_is_hashed_in_bounded_chunks(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = gguf.fingerprint(small)
    monkeypatch.setattr("models.gguf.identity.CHUNK", 7)
    assert gguf.fingerprint(small) == whole


def test_a_cached_fingerprint_is_found_without_opening_the_model(
    parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "deep" / "cache"
    expected = gguf.cached_fingerprint(parts[0], cache)
    assert expected == gguf.fingerprint(parts[0])
    monkeypatch.setattr("models.gguf.identity.read_parts", lambda _path: pytest.fail("the model was opened"))
    assert gguf.cached_fingerprint(parts[0], cache) == expected
    monkeypatch.chdir(tmp_path)
    assert gguf.cached_fingerprint(parts[0].name, cache) == expected
    assert [path.suffix for path in cache.iterdir()] == [".json"]


@pytest.mark.parametrize("changed", [0, 2])
def test_a_changed_file_is_hashed_again(parts: list[Path], tmp_path: Path, changed: int) -> None:
    before = gguf.cached_fingerprint(parts[0], tmp_path / "cache")
    path = parts[changed]
    place, whole = read_header(path).tensors[0], path.read_bytes()
    path.write_bytes(whole[: place.start] + bytes([whole[place.start] ^ 1]) + whole[place.start + 1 :])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    after = gguf.cached_fingerprint(parts[0], tmp_path / "cache")
    assert before != after == gguf.fingerprint(parts[0])


def test_a_link_that_turns_to_another_file_is_hashed_again(tmp_path: Path, small: Path) -> None:
    other = write(tmp_path / "other.gguf", metadata=METADATA | {"mamba.block_count": 3})
    for path in (small, other):
        os.utime(path, ns=(0, 10**18))
    link = tmp_path / "link.gguf"
    link.symlink_to(small)
    before = gguf.cached_fingerprint(link, tmp_path / "cache")
    link.unlink()
    link.symlink_to(other)
    assert before != gguf.cached_fingerprint(link, tmp_path / "cache") == gguf.fingerprint(other)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\x00",
        b"[" * 100_000,
        b"[]",
        b"null",
        b'{"format": 1, "files": [], "fingerprint": "00"}',
        b'{"format": 1, "files": [[3]], "fingerprint": 5}',
    ],
)
def test_a_damaged_cache_costs_time_only(small: Path, tmp_path: Path, content: bytes) -> None:
    expected = gguf.cached_fingerprint(small, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_bytes(content)
    assert gguf.cached_fingerprint(small, tmp_path / "cache") == expected
    assert json.loads(entry.read_bytes())["fingerprint"] == expected


@pytest.mark.parametrize(("key", "value"), [("format", 0), ("fingerprint", "0" * 63), ("fingerprint", "x" * 64)])
def test_an_entry_of_another_format_is_not_believed(small: Path, tmp_path: Path, key: str, value: object) -> None:
    expected = gguf.cached_fingerprint(small, tmp_path / "cache")
    (entry,) = (tmp_path / "cache").iterdir()
    entry.write_text(json.dumps(json.loads(entry.read_text()) | {key: value}))
    assert gguf.cached_fingerprint(small, tmp_path / "cache") == expected


def test_a_cache_that_cannot_be_written_is_no_error(small: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a directory")
    assert gguf.cached_fingerprint(small, tmp_path / "taken") == gguf.fingerprint(small)


def test_several_processes_share_a_cache(small: Path, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom models import gguf\npath, cache = map(pathlib.Path, sys.argv[1:])\n"
        "for _ in range(40):\n"
        "    for entry in cache.glob('*.json'): entry.unlink(missing_ok=True)\n"
        "    print(gguf.cached_fingerprint(path, cache))\n"
    )
    command = [sys.executable, "-c", program, str(small), str(tmp_path / "cache")]
    root = Path(gguf.__file__).parents[2]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(3)]
    for process in running:
        out, _ = process.communicate(timeout=200)
        assert (process.returncode, set(out.split())) == (0, {gguf.fingerprint(small)})
    assert all(re.fullmatch(r"gguf-[0-9a-f]{20}\.json", path.name) for path in (tmp_path / "cache").iterdir())
