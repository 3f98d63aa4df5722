"""Real processes under damaged and hostile input: they stay up, serve, and give back what they took.

`make fuzz TARGET=live SECONDS=300` does the same for longer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fuzz.hostile import torment
from fuzz.live import NAMES, SPARE_FILES, besiege

MORE_MIB = 200
"""What an attack may cost a process: the pages of its queues, once, not so much for each stranger."""


@pytest.mark.parametrize(("guarded", "seconds"), [(False, 4.0), (True, 2.0)], ids=["open", "with keys"])
def test_a_house_under_siege_stays_up_and_serves(tmp_path: Path, guarded: bool, seconds: float) -> None:
    figures: Any = besiege(tmp_path / "home", seconds, seed=1, guarded=guarded)
    assert figures["faults"] == []
    assert figures["turns"] > 0
    assert set(NAMES) <= figures["struck"].keys()
    for use in figures["uses"].values():
        assert use["mib_most"] < use["mib_before"] + MORE_MIB
        assert use["files_after"] <= use["files_before"] + SPARE_FILES


def test_a_worker_outlives_a_hostile_broker(tmp_path: Path) -> None:
    figures: Any = torment(tmp_path / "home", 3.0, seed=1)
    assert figures["faults"] == []
    assert figures["messages"] > 0
