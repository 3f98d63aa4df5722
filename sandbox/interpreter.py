"""Which programs named python sandboxed code finds: those that a shell would run here, though a home is hidden.

A version manager such as pyenv puts scripts (shims) on the PATH that start an interpreter somewhere in the home
directory. The code gets that interpreter itself, and the directories that it needs.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from typing import NamedTuple

ASK = "import os, sys; print(os.path.dirname(sys.executable), sys.prefix, sys.base_prefix, sep='\\n')"
PATIENCE_S = 10


class Found(NamedTuple):
    """The PATH for the code, and the directories that must be readable for it."""

    path: str
    places: tuple[str, ...]


def beneath(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def find(directory: str, hidden: Collection[str]) -> Found:
    """The PATH without folders that the code cannot see, and what this Python and the shell's python3 need.

    `directory` is where the code runs, and `hidden` are the directories that it cannot see.
    """
    ours = _prefixes((sys.prefix, sys.base_prefix))

    def is_hidden(path: str, places: tuple[str, ...] = ours) -> bool:
        return any(beneath(path, h) for h in hidden) and not any(beneath(path, p) for p in (directory, *places))

    path = os.environ.get("PATH", os.defpath)
    program = shutil.which("python3", path=path) or ""
    folder, places = "", ours
    # The code may have written what lies in its directory, so nothing in there is ever run outside the sandbox.
    if os.path.isabs(program) and is_hidden(os.path.realpath(os.path.dirname(program))):
        folder, *prefixes = _ask(program, directory) or ("",)
        shown = (p for p in _prefixes(prefixes) if not any(beneath(h, p) for h in (directory, *hidden)))
        places = (*ours, *shown)
    entries = []
    for entry in path.split(os.pathsep):
        if not os.path.isabs(entry) or not is_hidden(os.path.realpath(entry), places):
            entries.append(entry)
        elif folder and entry == os.path.dirname(program):
            entries.append(folder)
    return Found(os.pathsep.join(dict.fromkeys(entries)) or os.defpath, places)


@functools.cache
def _ask(program: str, directory: str) -> tuple[str, ...] | None:
    """Where an interpreter lies, and its prefixes, or None if it does not say so."""
    try:
        asked = subprocess.run(
            [program, "-I", "-c", ASK],
            cwd=directory,  # a version manager may choose by directory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = tuple(os.fsdecode(asked.stdout).splitlines())
    return lines if len(lines) == 3 and all(map(os.path.isabs, lines)) else None


def _prefixes(prefixes: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(p for prefix in prefixes for p in (prefix, os.path.realpath(prefix)) if prefix != "/"))
