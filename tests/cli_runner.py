"""The command line as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from cluster import Cluster

Run = Callable[..., subprocess.CompletedProcess[str]]


def run_in(
    cluster: Cluster, directory: Path, *words: str, text: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program of this installation, such as PIPE, in a directory; `text` is its standard input."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(words[0])), *words[1:]],
        input=text,
        env={**cluster.environment, **environment},
        cwd=directory,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
    )


def runner(cluster: Cluster) -> Run:
    """Runs `ssmprov WORDS` as a process in the cluster's environment; `text` is its standard input."""

    def run(*words: str, text: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return run_in(cluster, cluster.home, "ssmprov", *words, text=text, **environment)

    return run
