"""Run a long command that is quiet otherwise: `python tools/progress.py NAME COMMAND...`.

Every few seconds one line on stderr says how long it has run and what it does: the last step of a build such as
`[ 45%] Building CXX object ...`, or else its last line. What it said in full is shown when it fails.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

EVERY_S = 5.0
STEP = re.compile(r"(\[ *\d+(?:%|/\d+)\]) (.*)")
"""As make and ninja count the steps of a build."""
MADE = re.compile(r" -o (?:\S*/)?(\S+)")
"""What a compiler's command makes: the command itself is too long for a line."""
WIDTH = 100


def run(name: str, command: Sequence[str], every_s: float = EVERY_S) -> int:
    """The command's exit status, as a shell gives it."""
    said: list[str] = []
    ended = threading.Event()
    reporter = threading.Thread(target=_report, args=(name, said, ended, every_s))
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as child:
        reporter.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                said.append(line)
        except KeyboardInterrupt:  # which the command has heard as well
            return 128 + signal.SIGINT
        finally:
            ended.set()
            reporter.join()
    status = child.returncode if child.returncode >= 0 else 128 - child.returncode
    if status:
        sys.stderr.writelines(said)
    return status


def _report(name: str, said: Sequence[str], ended: threading.Event, every_s: float) -> None:
    began = time.monotonic()
    while not ended.wait(every_s):
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        print(f"{name}: {minutes} min {seconds:2} s: {doing(said)}", file=sys.stderr, flush=True)


def doing(said: Sequence[str]) -> str:
    """What the command does, by the lines that it has written so far."""
    for line in reversed(said[-200:]):
        if step := STEP.search(line):
            made = MADE.search(step[2])
            return f"{step[1]} {made[1] if made else step[2]}"[:WIDTH]
    return next((line.strip()[:WIDTH] for line in reversed(said) if line.strip()), "it has said nothing yet")


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
