"""What is left behind is seen: memory, open files, processes, sockets, temporary files; and what is not, is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from soak.resources import MORE_FDS, MORE_RSS, Use, grown, left_files, measure, orphans

WARM = Use(1, 100 << 20, 20, 5.0)


def test_growth_beyond_the_bounds_is_seen() -> None:
    assert grown({"broker": WARM}, {"broker": WARM, "newcomer": WARM}) == []
    assert grown({"broker": WARM}, {"broker": replace(WARM, rss=WARM.rss + MORE_RSS + 1)}) != []
    assert grown({"broker": WARM}, {"broker": replace(WARM, fds=WARM.fds + MORE_FDS + 1)}) != []


def test_this_process_can_be_measured_and_one_that_is_gone_is_left_out() -> None:
    found = measure({"me": os.getpid(), "nobody": 2**22 + 1})
    assert list(found) == ["me"]
    assert found["me"].rss > 1 << 20
    assert found["me"].fds > 0


def test_a_process_that_is_left_over_is_seen(tmp_path: Path) -> None:
    environment = os.environ | {"SSMPROV_HOME": str(tmp_path)}
    waits = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(waits, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert len(orphans(tmp_path)) == 1
        child.communicate()
    assert orphans(tmp_path) == []


def test_sockets_and_temporary_files_that_are_left_over_are_seen(tmp_path: Path) -> None:
    scratch, store, ready = tmp_path / "tmp", tmp_path / "store", tmp_path / "ready.json"
    for folder in (tmp_path / "run", scratch, store / "holders", store / "objects" / "ab", store / "scratch"):
        folder.mkdir(parents=True)
    (tmp_path / "run" / "broker.sock.lock").touch()
    (store / "objects" / "ab" / "abcd.safetensors").touch()

    def found() -> int:
        return len(left_files(tmp_path, ready, scratch, [store]))

    assert found() == 0
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other.sock"))
    for count, path in enumerate(
        [
            ready,
            scratch / "ssmprov-x",
            tmp_path / "run" / "bridge-1.json",
            store / "holders" / "ab",
            store / "objects" / "ab" / "abcd.0123.tmp",
            store / "scratch" / "1-2-x",
        ],
        start=2,
    ):
        path.touch()
        assert found() == count, path
