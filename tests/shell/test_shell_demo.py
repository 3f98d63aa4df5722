"""`make demo`, as a person would see it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from demo.house import House, Trouble, check
from demo.kinds import has_llama, smollm2
from demo.words import ADJECTIVES, NOUNS, VERBS, drawn
from ssmprov import rooms
from ssmprov.transcript import FENCE
from training.words import belongs

ROOT = Path(__file__).parents[2]


FIRST = ["Serving", "Asking", "Remembering", "Priming", "Forking", "Specialists", "Both", "The", "Moving", "An"]
KINDS = ["Two", "The", "One"]
LAST = ["The", "Costs"]


def demonstrate(folder: Path, *hidden: str, options: Sequence[str] = ()) -> str:
    """What a whole demonstration writes on a machine without the modules hidden."""
    folder.joinpath("sitecustomize.py").write_text(f"import sys\nsys.modules |= dict.fromkeys({hidden!r})\n")
    done = subprocess.run(
        [*rooms.command("demo"), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout


def sections(said: str) -> list[str]:
    return re.findall(r"^== (\w+)", said, re.MULTILINE)


def test_the_demonstration_shows_everything_and_leaves_nothing(tmp_path: Path) -> None:
    said = demonstrate(tmp_path, "llama_cpp")
    assert sections(said) == [*FIRST, *LAST]
    assert "skipped: GGUF models" in said
    assert "`make llama`" in said
    assert "primed -> shouter on rwkv7-mini/1" in said
    assert "A context is a model's whole state after reading a text." in said
    assert "it read 0 tokens before its prompt" in said
    assert "checked: the two contexts have read the same text" in said
    assert "divergence from plain reading: " not in said
    home = re.search(r"ipc://(/\S+)/run/broker\.sock", said)
    assert home is not None
    assert not Path(home[1]).exists()


@pytest.mark.skipif(not has_llama(), reason="the extra `llama` is not installed")
def test_with_llama_cpp_it_shows_the_other_kinds_of_models(tmp_path: Path) -> None:
    said = demonstrate(tmp_path, options=["--seed", "4", "--routing"])
    assert sections(said) == [*FIRST, *KINDS, *LAST]
    assert "was made by another model" in said
    assert "ckpt replay THEIRS:NAME --to OURS" in said
    assert "the text is equal" in said
    assert "divergence from plain reading: " in said
    assert "checked: the same text" in said
    served = set(re.findall(r"^  \S+/\d+ +ready", said, re.MULTILINE))
    if smollm2() is None:
        assert "skipped: SmolLM2" in said
        assert len(served) == 4
    else:
        assert "'The capital of France is' -> ' Paris." in said
        assert "skipped" not in said
        assert len(served) == 5


def test_the_words_of_the_demo_are_in_no_training_row() -> None:
    assert [word for word in ADJECTIVES + NOUNS + VERBS if not belongs(word, "held_out")] == []
    assert len({drawn(seed) for seed in range(20)}) == 20


def test_a_wrong_answer_ends_the_demo() -> None:
    check("as expected\n", "as expected")
    with pytest.raises(Trouble, match="should be 'this', but it is 'that'"):
        check("that\n", "this")


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
