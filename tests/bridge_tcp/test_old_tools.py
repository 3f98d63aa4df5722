"""The old `pipe.py` and `tools.py`, unchanged but for the port, beside ours on the same inputs.

Both write the same transcript and counter.
What differs was decided so:
- our PUT_FILE keeps a file's last line end, theirs takes it for the fence's empty line;
- our GET_FILE reads a turn whose content is empty, theirs loses it;
- our RUN fences the code; what it writes is the same;
- ours begins a new line before a header where the transcript ends in the middle of one, theirs goes on in that line;
- a failure that the server reports is no reply: ours mints and appends nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, scripted_toml
from ports import free_port

from ssmprov.transcript import FENCE, parse, turn, turns_of, written

PRIMER = Path(__file__).parents[3] / "shared" / "legacy" / "primer_cli.txt"
BIN = Path(sys.executable).parent
THEIR_PORT = "PORT = 6502"
PORT = free_port()  # only one suite at a time could have theirs
SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "[INTERFACE]:", "pieces": [" I see", ".", "\n\n", "~~~(", "end)"]},
        {"after": "[OPEN]:", "pieces": [" never closed"]},
        {"after": "", "pieces": ["ok"]},
    ]
}

Tool = Callable[..., bytes]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if not PRIMER.exists():
        pytest.skip("the old primer is not here")
    home = tmp_path_factory.mktemp("old")
    made = Cluster(home, scripted_toml(home, script=SCRIPT) + f'[[bridge]]\nport = {PORT}\nmodel = "talk"\n').up()
    made.start("bridge", "-m", "bridge_tcp", "--index", "0").expect("listens on")
    for number, name in ((1, "pipe.py"), (3, "tools.py")):
        content = next(t.content for t in turns_of(PRIMER.read_text()) if t.number == number)
        (home / name).write_text(content.replace(THEIR_PORT, f"PORT = {PORT}"))
    yield made
    made.close()


class Side:
    """One of the two: how it is called, and the directory that it works in."""

    def __init__(self, cluster: Cluster, directory: Path, commands: dict[str, list[str]], port: str = "") -> None:
        directory.mkdir()
        self.directory = directory
        self._cluster = cluster
        self._commands = commands
        self.port = port  # the context of the port that the old tools use

    def do(self, tool: str, *words: str, text: str = "") -> bytes:
        done = subprocess.run(
            [*self._commands[tool], *words],
            input=text.encode(),
            env=self._cluster.environment | {"PATH": f"{BIN}:{os.environ['PATH']}"},
            cwd=self.directory,
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert b"Traceback" not in done.stderr
        return done.stdout

    @property
    def transcript(self) -> str:
        path = self.directory / ".transcript.txt"
        return path.read_bytes().decode() if path.exists() else ""

    @property
    def counter(self) -> str:
        return (self.directory / ".counter").read_text().strip()

    def context(self) -> str:
        with self._cluster.client() as client:
            return client.text(self.port or (self.directory / ".context").read_text().strip())


@pytest.fixture
def sides(cluster: Cluster, tmp_path: Path) -> tuple[Side, Side]:
    with cluster.client() as client:
        for row in [*client.ls(model="talk").rows, *client.ls("@bridge", model="talk", reserved=True).rows]:
            client.rm([f"talk:{row.name}"])
    python = [sys.executable]
    tools = {name: [*python, str(cluster.home / "tools.py"), name] for name in ("GET", "PUT", "RUN", "QUOTE")}
    old = {"PIPE": [*python, str(cluster.home / "pipe.py")], **tools}
    new = {name: [str(BIN / name)] for name in ("PIPE", "GET", "PUT", "RUN", "QUOTE")}
    return Side(cluster, tmp_path / "old", old, f"talk:@bridge/{PORT}"), Side(cluster, tmp_path / "new", new)


def test_a_session_leaves_the_same_record_on_both_sides(sides: tuple[Side, Side]) -> None:
    for side in sides:
        side.do("PIPE", "--in", "CONTEXT", text="The shell, in five minutes.\n")
        side.do("PIPE", "--in", "USER", "--out", "INTERFACE", text="Do you see?\nYes or no.\n")
        side.do("PIPE", "--in", "BASH", text="printf 'one\\ntwo\\n'; echo three >&2\n")
        if not side.port and not shutil.which("bwrap"):
            side.do("RUN", "--unsafe")
        else:
            side.do("RUN")
        side.do("QUOTE", "2")
        side.do("PIPE", "--in", "USER", "--counter", "30", text="é🦀")
        side.do("PIPE", "--in", "USER", "--bang", "!primed", "--debang", text="nobody primed it")
        side.do("PIPE", text="/save kept\n")
        side.do("PIPE", "--in", "USER", text="after")
    old, new = sides
    failed = "[load error]"  # theirs records the failure as if it were a reply, and mints a number for it
    assert failed in old.transcript
    assert failed not in new.transcript
    assert [t.content for t in turns_of(new.transcript)][:6] == [t.content for t in turns_of(old.transcript)][:6]
    assert new.transcript.partition("(Turn 31)")[0] == old.transcript.partition("(Turn 31)")[0]
    assert (old.counter, new.counter) == ("32", "31")
    assert new.context() == new.transcript


def test_after_raw_text_ours_begins_a_new_line(sides: tuple[Side, Side]) -> None:
    for side in sides:
        side.do("PIPE", text="raw text\n")
        side.do("PIPE", "--in", "USER", text="x")
    old, new = sides
    assert old.transcript == "raw textok" + turn(1, "USER", "x")
    assert new.transcript == "raw textok\n\n" + turn(1, "USER", "x")
    assert [(side.counter, side.context() == side.transcript) for side in sides] == [("1", True)] * 2


def test_files_go_in_and_out_on_both_sides(sides: tuple[Side, Side]) -> None:
    for side in sides:
        for name, content in (("a.txt", "no line end"), ("b.py", "print('x')\n")):
            (side.directory / name).write_text(content)
            side.do("PUT", name)
        side.do("GET", "1", "sub/a.txt")
        side.do("GET", "b2.py")
    old, new = sides
    assert old.transcript == turn(1, "FILE", "no line end") + turn(2, "FILE", "print('x')")
    assert new.transcript == turn(1, "FILE", "no line end") + turn(2, "FILE", "print('x')\n")  # the one difference
    assert (old.counter, new.counter) == ("2", "2")
    assert [(side.directory / "sub/a.txt").read_text() for side in sides] == ["no line end"] * 2
    assert [(side.directory / "b2.py").read_text() for side in sides] == ["print('x')", "print('x')\n"]
    for side in sides:
        assert side.context() == side.transcript


def test_each_reads_what_the_other_has_written(sides: tuple[Side, Side]) -> None:
    old, new = sides
    new.do("PIPE", "--in", "FILE", text="made by ours\n\n  with = 'indentation'")
    new.do("PIPE", "--in", "USER", "--out", "INTERFACE", text="x")
    shutil.copy(new.directory / ".transcript.txt", old.directory)
    old.do("GET", "1", "out")
    assert (old.directory / "out").read_text() == "made by ours\n\n  with = 'indentation'"
    old.do("PIPE", "--in", "USER", text="theirs")
    shutil.copy(old.directory / ".transcript.txt", new.directory)
    new.do("QUOTE", "1")
    assert written(parse(new.transcript)) == new.transcript
    assert new.transcript.endswith(FENCE)


def test_files_of_the_real_primer_come_out_the_same(sides: tuple[Side, Side]) -> None:
    for side in sides:
        shutil.copy(PRIMER, side.directory / ".transcript.txt")
        for number in range(1, 10):
            side.do("GET", str(number), f"{number}.out")
    old, new = sides
    for number in range(1, 10):
        assert (new.directory / f"{number}.out").read_bytes() == (old.directory / f"{number}.out").read_bytes()
