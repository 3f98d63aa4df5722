"""Text from Windows through the shell tools: byte-order marks and CRLF line ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import SCRIPT, Cluster, scripted_toml

from ssmprov.transcript import turn

BIN = Path(sys.executable).parent
BOM = b"\xef\xbb\xbf"
Shell = Callable[..., bytes]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("windows")
    made = Cluster(home, scripted_toml(home, script=SCRIPT)).up()
    yield made
    made.close()


@pytest.fixture
def sh(cluster: Cluster, tmp_path: Path) -> Shell:
    with cluster.client() as client:
        if names := [row.name for row in client.ls(model="talk").rows]:
            client.rm(names)

    def run(line: str, text: bytes = b"", code: int = 0) -> bytes:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            input=text,
            env=cluster.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            cwd=tmp_path,
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stderr if code else done.stdout

    return run


def test_piped_text_loses_its_byte_order_mark(sh: Shell, tmp_path: Path) -> None:
    sh("PIPE --in CONTEXT", BOM + b"saved by an editor\r\n")
    recorded = (tmp_path / ".transcript.txt").read_bytes()
    assert recorded == turn(1, "CONTEXT", "saved by an editor").encode()
    assert b"UTF-8" in sh("PIPE --in CONTEXT", "hello".encode("utf-16"), code=1)
    assert (tmp_path / ".transcript.txt").read_bytes() == recorded


def test_a_file_comes_back_byte_for_byte(sh: Shell, tmp_path: Path) -> None:
    data = BOM + b"one\r\ntwo\n\r\n"
    (tmp_path / "in.txt").write_bytes(data)
    sh("PUT_FILE in.txt && GET_FILE out.txt")
    assert (tmp_path / "out.txt").read_bytes() == data


def test_a_transcript_with_crlf_is_read_and_kept(sh: Shell, tmp_path: Path) -> None:
    code = "#!/bin/sh\nif true; then\n  echo fine\nfi\n"
    before = (turn(1, "FILE", "a\nb\n") + turn(2, "BASH", code)).replace("\n", "\r\n").encode()
    path = tmp_path / ".transcript.txt"
    path.write_bytes(BOM + before)
    sh("GET_FILE out.txt")
    assert (tmp_path / "out.txt").read_bytes() == b"a\nb\n"
    assert sh("RUN --no-send") == b"fine\n"
    assert path.read_bytes() == BOM + before


def test_code_with_crlf_runs(sh: Shell) -> None:
    sh("PIPE --in BASH", b"#!/bin/bash\r\nif true; then\r\n  echo fine\r\nfi\r\n")
    assert sh("RUN --no-send") == b"fine\n"


def test_a_context_is_primed_with_the_same_text_as_through_the_shell(sh: Shell, tmp_path: Path) -> None:
    (tmp_path / "primer.txt").write_bytes(BOM + b"one\r\ntwo\rthree\n")
    sh("ssmprov ckpt replay --prime primer.txt --save here && ssmprov pipe --save there --max-tokens 0 < primer.txt")
    for name in ("here", "there"):
        assert sh(f"ssmprov ckpt show {name} --text") == b"one\r\ntwo\rthree\n"


def test_a_turn_follows_a_transcript_that_an_editor_gave_a_byte_order_mark(sh: Shell, tmp_path: Path) -> None:
    sh("PIPE --in USER", b"one")
    path = tmp_path / ".transcript.txt"
    marked = BOM + path.read_bytes()
    path.write_bytes(marked)
    sh("PIPE --in USER", b"two")
    assert path.read_bytes() == marked + turn(2, "USER", "two").encode()
    assert sh("ssmprov ckpt show $(cat .context) --text") == path.read_bytes().removeprefix(BOM)
