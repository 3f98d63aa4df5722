"""The README's five minutes in the shell, typed as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.house import House
from ssmprov.transcript import turns_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MINUTES = README.partition("## Five minutes")[2].partition("## Make a specialist")[0]
SPECIALIST = README.partition("## Make a specialist")[2].partition("## Configuration")[0]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


def typed(house: House, script: str) -> subprocess.CompletedProcess[str]:
    """A script as somebody types it, which stops at the first thing that fails; none may."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=house.environment,
        cwd=house.home,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_shell_does_what_the_readme_says(house: House) -> None:
    script = "\n".join(re.findall(r"```sh\n(.*?)```", MINUTES, re.DOTALL)).replace("6502", str(house.port))
    if shutil.which("nc") is None:
        script = "\n".join(line for line in script.splitlines() if "| nc " not in line)
    done = typed(house, script)
    assert "(Turn 2) [CONTEXT]: You are a shouter." in done.stdout
    assert "0 faults" in done.stdout
    assert "echo-2" in done.stderr
    assert (house.home / "echo.ctx").exists()


def test_the_python_does_what_the_readme_says(house: House) -> None:
    [program] = re.findall(r"```python\n(.*?)```", MINUTES, re.DOTALL)
    house.shell("printf 'You are a shouter.' | ssmprov pipe --model rwkv7-mini --save shouter --overwrite --in CONTEXT")
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(" 0\n")


def test_a_specialist_is_made_as_the_readme_says(house: House) -> None:
    """With fewer steps on smaller batches than the page's."""
    [script] = re.findall(r"```sh\n(.*?)```", SPECIALIST, re.DOTALL)
    plan = "specialists/animals/plan.toml"
    small = f"printf 'batch_tokens = 1024\nlongest = 512\n' >> {plan}\nssmprov specialist check"
    script = script.replace("--steps 60", "--steps 24").replace("ssmprov specialist check", small, 1)
    done = typed(house, script)
    assert '{"animal": "owl", "colour": "black"}' in done.stdout.splitlines()
    assert "moved rwkv7-mini:animals from - to #" in done.stdout
    assert (house.home / "specialists" / "animals" / "report.html").is_file()


def test_the_shell_page_does_what_it_says(house: House) -> None:
    page = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("~/src/ssmprov", str(ROOT))
    if shutil.which("bwrap") is None:
        script = script.replace("\nRUN ", "\nRUN --unsafe ")
    typed(house, script)
    turns = turns_of((house.home / "play" / ".transcript.txt").read_text())
    assert [turn.role for turn in turns[:3]] == ["CONTEXT", "USER", "INTERFACE"]
    output = next(turn for turn in turns if turn.role == "OUTPUT")
    assert output.content.startswith("42\nanswer.py\n")
    assert turns[-1].role == "QUOTE"
    assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
