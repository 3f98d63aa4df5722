"""docs/concepts.md and docs/tutorial.md, typed as they stand there. The tutorial downloads the shipped model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from cluster import Process
from safetensors.torch import load_file
from typed_pages import ROOT, shell_blocks, typed

from demo.house import House
from models import mini
from ssmprov.transcript import turns_of

BIN = Path(sys.executable).parent
UP = "ssmprov up\n"


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with House() as house:
        yield house


def test_the_page_of_words_does_what_it_says(house: House) -> None:
    page = (ROOT / "docs/concepts.md").read_text(encoding="utf-8")
    done = typed(house, "\n".join(shell_blocks(page)))
    assert "(Turn 1) [CONTEXT]: The key is in the kitchen." in done.stdout
    assert "agree       yes" in done.stdout
    assert "0 faults" in done.stdout
    directory = house.home / "first"
    turns = turns_of((directory / ".transcript.txt").read_text())
    assert [turn.role for turn in turns] == ["CONTEXT", "USER", "INTERFACE"]
    shouter = house.shell("ssmprov ckpt show shouter --text").stdout
    assert shouter.startswith("(Turn 1) [CONTEXT]: The key is in the kitchen.")


@dataclass(frozen=True)
class Newcomer:
    """A home directory with a program `hf` that downloads the shipped model, whichever one is asked for."""

    home: Path

    @property
    def environment(self) -> dict[str, str]:
        mine = {key: value for key, value in os.environ.items() if not key.startswith("SSMPROV_")}
        return mine | {"HOME": str(self.home), "PATH": f"{self.home}:{BIN}:{os.environ['PATH']}"}


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    torch.save(load_file(mini.path()), tmp_path / "mini.pth")
    hf = tmp_path / "hf"
    hf.write_text('#!/bin/sh\n[ "$1 $4" = "download --local-dir" ] && mkdir -p "$5" && cp ~/mini.pth "$5/$3"\n')
    hf.chmod(0o700)
    return Newcomer(tmp_path)


def test_the_tutorial_does_what_it_says(newcomer: Newcomer) -> None:
    page = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8").partition("## A larger model")[0]
    blocks = shell_blocks(page)
    lines = "\n".join(blocks).splitlines()
    script = "\n".join(line for line in lines if not line.startswith(("make ", "python3 -m pip ")))
    before, up, after = script.partition(UP)
    assert up
    typed(newcomer, before)
    work = newcomer.home / "ssmprov-tutorial"
    process = Process("up", [str(BIN / "ssmprov"), "up"], newcomer.environment | {"SSMPROV_HOME": str(work)}, work)
    try:
        process.expect(r" up \| serving ")
        done = typed(newcomer, after)
    finally:
        process.kill()
    for name in ("french", "sumup"):
        roles = [turn.role for turn in turns_of((work / name / ".transcript.txt").read_text())]
        assert roles[:5] == ["CONTEXT", "USER", "INTERFACE", "USER", "INTERFACE"]
    last = done.stdout.rpartition("(Turn 1) [CONTEXT]: You are a translator.")[2]
    assert "une tasse de thé" in last, "french has read its first examples"
    assert "Bonjour" not in last, "french was moved back before the last one"
    assert {path.name for path in work.glob("letters/*.french")} == {"book.french", "heating.french"}
