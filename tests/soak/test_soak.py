"""Half a minute of the soak, with another seed each day: `make soak SECONDS=35 SEED=n` repeats one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from soak import conductor
from soak.__main__ import report

SECONDS = float(os.environ.get("SOAK_SECONDS", "35"))
SEED = int(os.environ.get("SOAK_SEED", time.time() // 86400))


@pytest.mark.timeout(SECONDS + 300)
def test_every_promise_holds_while_processes_are_killed(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    verdict = conductor.run(tmp_path / "home", SECONDS, SEED)
    print(report(verdict))
    assert verdict.findings == []
    assert sum(verdict.signals.values()) >= 5, "a soak in which nothing is killed shows nothing"
    assert verdict.figures["acknowledged saves"] >= 20, "nor does one in which nothing is saved"
