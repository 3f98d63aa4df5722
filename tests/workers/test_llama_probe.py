"""The check of the library: what kills a child never reaches the worker, and is said plainly."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from ssmprov.errors import Unavailable, Unsupported
from workers.runtimes.llama import probe


def program(folder: Path, line: str) -> str:
    """A program that stands in for the interpreter of the child; it counts how often it ran."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\necho x >> "{folder}/runs"\n{line}\n')
    path.chmod(0o755)
    return str(path)


def runs(folder: Path) -> int:
    return len((folder / "runs").read_text().splitlines()) if (folder / "runs").exists() else 0


def test_a_library_that_works_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, f'exec "{sys.executable}" "$@"'))
    cache = tmp_path / "cache"
    probe.ensure(cache)
    probe.ensure(cache)
    assert runs(tmp_path) == 1
    (cache / probe.NOTE).write_text("[" * 100_000)  # a damaged note is no answer
    probe.ensure(cache)
    assert runs(tmp_path) == 2
    library = tmp_path / "other"
    library.mkdir()
    (library / "libllama.so").write_bytes(b"new")
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(library))
    with pytest.raises(Unsupported, match="make llama REBUILD=1"):  # another library: asked again, and it is none
        probe.ensure(cache)
    assert runs(tmp_path) == 3


@pytest.mark.parametrize("name", ["ILL", "ABRT", "SEGV"])
def test_a_library_that_dies_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, f"kill -{name} $$"))
    with pytest.raises(Unsupported, match=rf"SIG{name}.*another processor.*make llama REBUILD=1"):
        probe.ensure(tmp_path / "cache")
    with pytest.raises(Unsupported):  # a failure is not remembered: it may have been mended
        probe.ensure(tmp_path / "cache")
    assert runs(tmp_path) == 2


def test_a_child_that_was_killed_may_be_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, "kill -KILL $$"))
    with pytest.raises(Unavailable, match="memory") as told:
        probe.ensure(None)
    assert told.value.retry


def test_a_child_that_fails_tells_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", program(tmp_path, "echo no such symbol >&2; exit 1"))
    with pytest.raises(Unsupported, match="no such symbol"):
        probe.ensure(None)


def test_every_signal_has_its_sentence() -> None:
    assert "memory" in probe.verdict(-signal.SIGKILL, "")
    assert "SIGBUS" in probe.verdict(-signal.SIGBUS, "")
    assert "no word" in probe.verdict(3, "")


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a folder should be")
    probe.ensure(tmp_path / "cache")
