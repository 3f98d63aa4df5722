"""The command line as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster

Run = Callable[..., subprocess.CompletedProcess[str]]


def runner(cluster: Cluster) -> Run:
    """Runs `ssmprov WORDS` as a process in the cluster's environment; `input` is its standard input."""

    def run(*words: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("ssmprov")), *words],
            input=text,
            env={**cluster.environment, **environment},
            cwd=cluster.home,
            capture_output=True,
            encoding="utf-8",
            timeout=200,
            check=False,
        )

    return run
