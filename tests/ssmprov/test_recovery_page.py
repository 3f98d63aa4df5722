"""docs/recovery.md: every error has its section."""

from __future__ import annotations

import re
from pathlib import Path

from ssmprov.errors import BY_CODE

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "recovery.md").read_text(encoding="utf-8")


def test_every_error_has_a_section() -> None:
    codes = re.findall(r"^### `(\w+)`$", TEXT, re.MULTILINE)
    assert sorted(codes) == sorted(BY_CODE)
    for section in TEXT.partition("## By code")[2].partition("\n## ")[0].split("\n### ")[1:]:
        assert len(section) > 100
