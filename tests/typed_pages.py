"""Pages of the documentation, typed as they stand there."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).parents[1]


PRINTS = "#> "
"""Begins a line that says what the command before it prints."""


class Place(Protocol):
    """Where somebody types: a directory, and its environment."""

    @property
    def home(self) -> Path: ...
    @property
    def environment(self) -> Mapping[str, str]: ...


def typed(place: Place, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script as somebody types it, which stops at the first thing that fails; none may."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={**place.environment, **environment},
        cwd=place.home,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def shell_blocks(page: str) -> list[str]:
    """The shell commands of a page or a part of one, block by block."""
    return re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def commands(page: str) -> str:
    """The shell commands of a page as one script, which fails where a command does not print what the page says."""
    lines: list[str] = []
    for line in "\n".join(shell_blocks(page)).splitlines():
        if line.startswith(PRINTS):
            said = shlex.quote(line.removeprefix(PRINTS))
            lines[-1] = f"said=$({lines[-1]}\n)"
            lines.append(f'[ "$said" = {said} ] || {{ echo "it said: $said" >&2; exit 9; }}')
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
