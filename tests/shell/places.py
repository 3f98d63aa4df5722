"""Working directories in which the shell tools run as processes: what they record there, and how they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import SCRIPT

from ssmprov.transcript import FENCE

BIN = Path(sys.executable).parent
Shell = Callable[..., subprocess.CompletedProcess[bytes]]
SCRIPT_SHELL = {
    "replies": [
        {"after": "[OK]: ", "pieces": ["fine", FENCE]},
        {"after": "[OK]:", "pieces": [" fine", FENCE]},
        {"after": "[OPEN]:", "pieces": [" never closed"]},
        {"after": "[STEER]:", "pieces": [" \x1b]0;title\x07 red", FENCE]},
        {"after": "[LOUD]:", "pieces": [" LOUD", FENCE]},
        *SCRIPT["replies"],
    ]
}


def good(done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def recorded(place: Path) -> str:
    path = place / ".transcript.txt"
    return path.read_text() if path.exists() else ""


def own(place: Path) -> str:
    """The name of the directory's context."""
    return (place / ".context").read_text().strip()


def counter(place: Path) -> str:
    path = place / ".counter"
    return path.read_text() if path.exists() else ""
