"""`tools/progress.py`: a long command says what it does, and what it said is shown when it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
RUN = (
    f"import sys; sys.path.insert(0, {str(TOOLS)!r}); import progress; sys.exit(progress.run('it', sys.argv[1:], 0.05))"
)


def begun(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-P", "-c", RUN, *command], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Collecting x", "Collecting x"),
        ("[ 45%] Building CXX object a/b.cpp.o", "[ 45%] Building CXX object a/b.cpp.o"),
        ("  [7/140] /usr/bin/c++ -DX -o src/b.cpp.o -c /tmp/src/b.cpp", "[7/140] b.cpp.o"),
        ("[46%] Building\nwarning: unused", "[46%] Building"),
        ("x" * 300, "x" * 100),
    ],
)
def test_it_says_what_the_command_does_while_it_runs(tmp_path: Path, said: str, told: str) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with begun("sh", "-c", 'printf "%s\\n" "$1"; read line <"$2"', "sh", said, str(gate)) as running:
        assert running.stderr is not None
        seen = []
        for line in running.stderr:
            seen.append(line.rstrip("\n"))
            if seen[-1].endswith(f" s: {told}"):
                break
        gate.write_text("go on\n")
    assert seen[-1] == f"it: 0 min {seen[-1][10:12]} s: {told}"
    assert running.returncode == 0


@pytest.mark.parametrize(("end", "status"), [("exit 3", 3), ("kill -TERM $$", 143), ("exit 0", 0)])
def test_what_it_said_is_shown_in_full_only_when_it_fails(end: str, status: int) -> None:
    lines = "".join(f"line {n}\n" for n in range(300))
    with begun("sh", "-c", f'printf "%s" "$1"; echo an error >&2; {end}', "sh", lines) as running:
        _, err = running.communicate()
    shown = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("it: "))
    assert shown == (f"{lines}an error\n" if status else "")
    assert running.returncode == status
