"""The suite itself, started as a script or `nohup` starts a job in the background."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROBE = """
import os, signal, subprocess, sys
import pytest
from background import SIGNALS

CHILD = "import signal, sys; print([signal.getsignal(int(n)) is signal.SIG_IGN for n in sys.argv[1:]])"

@pytest.mark.parametrize("nth", range(4))
def test_signals(nth):
    words = [sys.executable, "-c", CHILD, *(str(number.value) for number in SIGNALS)]
    assert subprocess.check_output(words, text=True) == "[False, False, False]\\n"
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    os.kill(os.getpid(), signal.SIGHUP)  # the terminal has gone: what runs under nohup goes on
"""


@pytest.mark.parametrize("processes", [0, 2])
def test_what_the_background_ignores_reaches_the_tests_and_their_children(tmp_path: Path, processes: int) -> None:
    (tmp_path / "test_probe.py").write_text(PROBE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    plugins = ["-p", "xdist", "-p", "background", "-p", "no:cacheprovider"]
    words = [sys.executable, "-P", "-m", "pytest", *plugins, "-n", str(processes), str(tmp_path)]
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT HUP QUIT; exec "$@"', "sh", *words],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
