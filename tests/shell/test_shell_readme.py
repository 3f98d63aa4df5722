"""The README and the shell's page, typed as they stand there. A line `#> TEXT` is what the command before it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typed_pages import commands, typed

from demo.house import House
from ssmprov.transcript import turns_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FIRST = README.partition("\n## ")[0]
MINUTES = README.partition("## Five minutes")[2].partition("\n## ")[0]
SPECIALIST = README.partition("## Make a specialist")[2].partition("\n## ")[0]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


def test_the_first_question_is_answered_without_a_broker(tmp_path: Path) -> None:
    [(line, expected)] = re.findall(r"^(ssmprov say .*)\n#> (.*)$", FIRST, re.MULTILINE)
    house = House()
    try:
        done = subprocess.run(
            ["bash", "-c", line],
            env=house.environment | {"SSMPROV_HOME": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
    finally:
        house.close()
    assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr
    assert done.stderr.count("\n") == 1


def test_the_shell_does_what_the_readme_says(house: House) -> None:
    script = commands(MINUTES).replace("6502", str(house.port))
    if shutil.which("nc") is None:
        script = "\n".join(line for line in script.splitlines() if "| nc " not in line)
    done = typed(house, script, HOME=str(house.home))
    assert "(Turn 4) [CONTEXT]: You are a shouter." in done.stdout
    assert "0 faults" in done.stdout
    assert "echo-2" in done.stderr
    assert (house.home / "ssmprov-play" / "echo.ctx").exists()


def test_the_python_does_what_the_readme_says(house: House) -> None:
    [program] = re.findall(r"```python\n(.*?)```", MINUTES, re.DOTALL)
    house.shell(
        "printf 'You are a shouter. Answer in capitals.' |"
        " ssmprov pipe --save shouter --overwrite --in CONTEXT --turn 1 --no-record"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env=house.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    expected = re.findall(r"print\(.*  # ([^:\n]*)", program)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, expected, "")


def test_a_specialist_is_made_as_the_readme_says(house: House) -> None:
    """With fewer steps on smaller batches than the page's."""
    script = commands(SPECIALIST)
    plan = "specialists/animals/plan.toml"
    small = f"printf 'batch_tokens = 1024\nlongest = 512\n' >> {plan}\nssmprov specialist check"
    script = script.replace("--steps 60", "--steps 24").replace("ssmprov specialist check", small, 1)
    done = typed(house, script, HOME=str(house.home))
    assert "moved rwkv7-mini:animals from - to #" in done.stdout
    assert (house.home / "specialists" / "animals" / "report.html").is_file()


def test_the_shell_page_does_what_it_says(house: House) -> None:
    page = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("~/src/ssmprov", str(ROOT))
    if shutil.which("bwrap") is None:
        script = script.replace("\nRUN ", "\nRUN --unsafe ")
    typed(house, script, HOME=str(house.home))
    turns = turns_of((house.home / "play" / ".transcript.txt").read_text())
    assert [turn.role for turn in turns[:3]] == ["CONTEXT", "USER", "INTERFACE"]
    output = next(turn for turn in turns if turn.role == "OUTPUT")
    assert output.content.startswith("42\nanswer.py\n")
    assert turns[-1].role == "QUOTE"
    assert [turn.number for turn in turns] == list(range(1, len(turns) + 1))
