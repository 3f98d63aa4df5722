"""Specialists of tiny models, and the commands on them, most of them in this process."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cluster import Cluster

from specialists.cli import specialist
from ssmprov.errors import SsmprovError
from training.checkpoint import NAME as CHECKPOINT

WORDS = ("ash", "bee", "cup", "dog", "elm", "fox", "gum", "hat", "ink", "jar", "key", "log", "map", "net", "oak", "pen",
         "rod", "sun", "tin", "urn", "van", "wax", "yew", "zoo")  # fmt: skip
ROWS = "".join(f"{a} {b}\tyes\n" for a in WORDS for b in WORDS[:3])
SMALL = """
[stages.{stage}]
examples = 2
steps = 6
batch_tokens = 640
longest = 128
check_every = 2
save_every_s = 0
reply_tokens = 24
group = 2
prompts = 2
"""


def good(*words: str) -> Any:
    done = CliRunner().invoke(specialist, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: str) -> str:
    """What is told of the error that a command ends with."""
    with pytest.raises(SsmprovError) as error:
        CliRunner().invoke(specialist, words, catch_exceptions=False)
    return str(error.value)


def begun(house: Cluster, *words: str) -> subprocess.Popen[bytes]:
    """A command as a process of its own."""
    command = [str(Path(sys.executable).with_name("ssmprov")), "specialist", *words]
    return subprocess.Popen(command, env=house.environment, cwd=house.home, stderr=subprocess.PIPE)


def learning(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the first checkpoint of a run."""
    end = time.monotonic() + 60
    while not list(folder.glob(f"runs/*/{CHECKPOINT}")):
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before its first checkpoint"
        select.select([], [], [], 0.01)


def made(house: Cluster, name: str, *, model: str = "tiny", stages: tuple[str, ...] = ("stage_a",)) -> Path:
    """A specialist whose rows all have one answer."""
    rows = house.home / "yes.txt"
    rows.write_text(ROWS)
    words = ["init", name, "--track", "pairs", "--model", model, "--data", str(rows)]
    assert CliRunner().invoke(specialist, words, catch_exceptions=False).exit_code == 0
    folder = house.home / "specialists" / name
    plan = (folder / "plan.toml").read_text()
    at = plan.index("[stages.")
    (folder / "plan.toml").write_text(plan[:at] + "".join(SMALL.format(stage=stage) for stage in stages))
    return folder
