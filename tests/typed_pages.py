"""Pages of the documentation, typed as they stand there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[1]


class Place(Protocol):
    """Where somebody types: a directory, and its environment."""

    @property
    def home(self) -> Path: ...
    @property
    def environment(self) -> Mapping[str, str]: ...


def typed(place: Place, script: str) -> subprocess.CompletedProcess[str]:
    """A script as somebody types it, which stops at the first thing that fails; none may."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=place.environment,
        cwd=place.home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def shell_blocks(page: str) -> list[str]:
    """The shell commands of a page or a part of one, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
