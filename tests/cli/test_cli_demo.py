"""`make demo`, as a person would see it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.house import House, Trouble
from ssmprov.transcript import FENCE

ROOT = Path(__file__).parents[2]


def test_the_demonstration_shows_everything_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    sections = re.findall(r"^== (\w+)", done.stdout, re.MULTILINE)
    assert sections == ["Serving", "Priming", "Forking", "Specialists", "Both", "The", "Moving", "What", "What"]
    assert "primed -> shouter on rwkv7-mini/1" in done.stdout
    assert "prefill 0 tokens" in done.stdout
    home = re.search(r"ipc://(/\S+)/run/broker\.sock", done.stdout)
    assert home is not None
    assert not Path(home[1]).exists()


def test_the_primer_is_a_transcript_of_closed_turns() -> None:
    text = (ROOT / "demo/primer.txt").read_text(encoding="utf-8")
    turns = text.split(FENCE)
    assert turns.pop() == ""
    assert [re.match(r"\(Turn (\d+)\) \[[A-Z]+\]: ", turn)[1] for turn in turns] == [str(i) for i in range(18)]  # type: ignore[index]


def test_what_fails_in_its_shell_is_told_in_plain_words(tmp_path: Path) -> None:
    house = House()
    (house.home / "up.log").write_text("broker | a last word\n", encoding="utf-8")
    with pytest.raises(Trouble, match=r"(?s)ended with status 4:.*broker \| a last word"):
        house.shell("exit 4")
    house.close()
    assert not house.home.exists()
