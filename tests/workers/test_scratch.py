"""Files on their way through a worker leave nothing behind, even when the worker was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from workers import scratch

KILLED = (
    "import os, signal, sys; from pathlib import Path; from workers.scratch import scratch\n"
    "with scratch(Path(sys.argv[1])) as path:\n"
    "    path.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
)


def left(store: Path) -> list[Path]:
    return list((store / scratch.FOLDER).iterdir())


def test_a_file_is_gone_after_its_use(tmp_path: Path) -> None:
    with scratch.scratch(tmp_path) as path:
        path.write_bytes(b"whole")
        assert path.is_relative_to(tmp_path)
    assert left(tmp_path) == []


def test_what_a_killed_worker_left_is_swept_and_what_lives_is_not(tmp_path: Path) -> None:
    with scratch.scratch(tmp_path) as path:
        path.write_bytes(b"mine")
        subprocess.run([sys.executable, "-P", "-c", KILLED, str(tmp_path)], check=False)
        assert len(left(tmp_path)) == 2
        scratch.sweep(tmp_path)
        assert left(tmp_path) == [path.parent]


def test_a_store_that_never_had_one_is_swept_too(tmp_path: Path) -> None:
    scratch.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
