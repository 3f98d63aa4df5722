"""docs/recovery.md: every error has its section, and what it links to and tells to run exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shell.ckpt import ckpt
from ssmprov.errors import BY_CODE
from ssmprov.main import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "recovery.md").read_text(encoding="utf-8")


def test_every_error_has_a_section() -> None:
    codes = re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE)
    assert sorted(codes) == sorted(BY_CODE)
    for section in TEXT.partition("## By code")[2].partition("\n## ")[0].split("\n### ")[1:]:
        assert len(section) > 100


@pytest.mark.parametrize("page", ["recovery.md", "checkpoints.md"])
def test_its_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    heads = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)$", text, re.M)}
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert targets
    for target in targets:
        assert target[1:] in heads if target.startswith("#") else (DOCS / target.partition("#")[0]).exists()


def test_the_commands_that_it_tells_exist() -> None:
    words = re.findall(r"ssmprov (\w+)(?: (\w+))?", TEXT)
    known = [(first, second) for first, second in words if first in COMMANDS]
    assert {first for first, _ in known} >= {"up", "status", "worker", "ckpt"}
    assert {second for first, second in known if first == "ckpt"} <= set(ckpt.commands)
