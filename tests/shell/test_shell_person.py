"""The README's first half hour, typed by an ordinary user on a machine without the shared home `/_`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_shell_readme import FIRST, MINUTES
from typed_pages import commands

from ssmprov.rooms import CONFIG, PACKAGE, ROOT

PYTHON = "/usr/bin/python3"
UID = 12345
HOME = "home/.local/share/ssmprov/home"


def _python_of_others() -> str:
    """A reason to skip, or '': a Python of this version that every user may run, and the right to become a user."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return "only root can become another user"
    version = "import sys; print(*sys.version_info[:2])"
    found = (
        subprocess.run([PYTHON, "-c", version], capture_output=True, text=True, check=False)
        if Path(PYTHON).exists()
        else None
    )
    if found is None or found.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        return f"{PYTHON} is not a Python of this version"
    packages = Path(pytest.__file__).parents[1]
    readable = [
        "setpriv",
        f"--reuid={UID}",
        "--clear-groups",
        "test",
        "-r",
        str(packages),
        "-a",
        "-r",
        str(ROOT / "config"),
    ]
    return "" if subprocess.run(readable, check=False).returncode == 0 else "other users cannot read this checkout"


@pytest.fixture(scope="module")
def person() -> Iterator[Person]:
    if reason := _python_of_others():
        pytest.skip(reason)
    place = Path(tempfile.mkdtemp(prefix="ssmprov-person-", dir="/tmp"))
    try:
        yield Person(place)
    finally:
        shutil.rmtree(place)


class Person:
    """An ordinary user with an empty home, and the commands of this checkout on the PATH."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.chmod(0o755)
        for folder in ("bin", "home"):
            (place / folder).mkdir()
        os.chown(place / "home", UID, UID)
        starts = {"ssmprov": f"{PYTHON} -P {PACKAGE / 'start.py'} -m ssmprov"}
        for name in ("pipe", "get_file", "put_file"):
            call = f"import sys; from ssmprov.programs import {name}; sys.exit({name}())"
            starts[name.upper()] = f"{PYTHON} -P -c '{call}'"
        for name, line in starts.items():
            file = place / "bin" / name
            file.write_text(f'#!/bin/sh\nexec {line} "$@"\n')
            file.chmod(0o755)
        packages = {str(Path(pytest.__file__).parents[1]), *(entry for entry in sys.path if entry.endswith("packages"))}
        self.environment = {
            "HOME": str(place / "home"),
            "PATH": f"{place}/bin:/usr/bin:/bin",
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sorted(packages)]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    def start(self, *words: str, text: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", *words],
            env=self.environment,
            cwd=self.place / "home",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def type(self, script: str) -> tuple[str, str]:
        """Type a script; nothing in it may fail. Returns what it wrote."""
        process = self.start("bash", "-euo", "pipefail", "-c", script)
        said, trouble = process.communicate(timeout=250)
        assert process.returncode == 0, trouble + said
        return said, trouble


def test_the_first_question_needs_no_preparation(person: Person) -> None:
    [(line, expected)] = re.findall(r"^(ssmprov say .*)\n#> (.*)$", FIRST, re.MULTILINE)
    said, _ = person.type(line)
    assert said == f"{expected}\n"


def test_up_and_the_shell_find_the_same_directory(person: Person) -> None:
    home = person.place / HOME
    home.mkdir(parents=True)
    for folder in (home, *home.parents):
        if folder == person.place / "home":
            break
        os.chown(folder, UID, UID)
    config = (CONFIG / "default.toml").read_text(encoding="utf-8")
    (home / "ssmprov.toml").write_text(re.sub(r"^port = \d+", "port = 0", config, flags=re.MULTILINE))
    up = person.start("ssmprov", "up", "--ready-file", str(home / "ready"))
    try:
        assert up.stderr is not None
        told = next(line for line in up.stderr if "serving" in line)
        assert str(home) in told
        script = "\n".join(line for line in commands(MINUTES).splitlines() if "| nc " not in line)
        said, _ = person.type(script)
        assert "0 faults" in said
        transcript = (person.place / "home/ssmprov-play/.transcript.txt").read_text()
        assert "Where is the key?" in transcript
    finally:
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=60)
    assert up.returncode == 0
