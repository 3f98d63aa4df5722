"""Where the tools write: into pipes and devices, through links, and over plain files as a whole."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml

from ssmprov.transcript import turn

BIN = Path(sys.executable).parent
Shell = Callable[[str], subprocess.CompletedProcess[bytes]]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("files")
    made = Cluster(home, scripted_toml(home)).up()
    with made.client() as client:
        client.turn("hello", save="kept", max_tokens=0)
    yield made
    made.close()


@pytest.fixture
def sh(cluster: Cluster, tmp_path: Path) -> Shell:
    (tmp_path / ".transcript.txt").write_text(turn(1, "FILE", "content\n"))

    def run(line: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            stdin=subprocess.DEVNULL,
            env=cluster.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            timeout=200,
            check=False,
        )

    return run


WRITERS = {
    "get": "GET_FILE",
    "export": "ssmprov ckpt export kept",
    "primer": "ssmprov primer --part config --out",
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_no_plain_file_is_written_through(sh: Shell, tmp_path: Path, writer: str) -> None:
    command = WRITERS[writer]
    done = sh(f"{command} plain")
    assert done.returncode == 0, done.stderr
    content = (tmp_path / "plain").read_bytes()
    assert content
    os.mkfifo(tmp_path / "pipe")
    for line in (
        f"{command} /dev/stdout",
        f"{command} /proc/self/fd/1 | cat",
        f"{command} >(cat) | cat",
        f"cat pipe & {command} pipe; wait",
    ):
        done = sh(line)
        assert (done.returncode, done.stdout) == (0, content), (line, done.stderr)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_device_is_not_replaced(sh: Shell, writer: str) -> None:
    assert sh(f"{WRITERS[writer]} /dev/null").returncode == 0
    done = sh(f"{WRITERS[writer]} /dev/full")
    assert done.returncode == 1
    assert b"/dev/full" in done.stderr
    for device in ("/dev/null", "/dev/full"):
        assert stat.S_ISCHR(os.stat(device).st_mode)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_link_stays_a_link(sh: Shell, tmp_path: Path, writer: str) -> None:
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o604)
    link.symlink_to(target)
    assert sh(f"{WRITERS[writer]} link").returncode == 0
    assert link.is_symlink()
    assert target.read_bytes() not in (b"", b"old")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604
    assert os.listdir(target.parent) == ["file"]


def test_a_filter_is_written_through_a_link(sh: Shell, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "kept").symlink_to("../program")
    assert sh("ssmprov filter make kept --dir bin").returncode == 0
    assert (tmp_path / "bin" / "kept").is_symlink()
    assert os.access(tmp_path / "program", os.X_OK)
