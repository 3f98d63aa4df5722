"""Damaged states never reach the library in a form that ends the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("llama_cpp")

from llama_toys import KINDS

HERE = Path(__file__).parent
EACH = 20_000
"""For each kind of model: at least 100,000 in all."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_state_ends_the_process(tmp_path: Path, kind: str) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE)))}
    seed = KINDS.index(kind)
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "llama_fuzz.py"), str(tmp_path), kind, str(EACH), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    counts = json.loads(done.stdout)
    assert counts["taken"] + counts["refused"] == EACH
    assert counts["refused"] > EACH / 2
    assert counts["taken"] > 0  # other numbers in the tensors are a state like any other
