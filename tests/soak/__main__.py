"""`make soak SECONDS=600 SEED=n`: soak, print what came of it, and exit 1 where a promise broke."""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from soak.conductor import Verdict, run, save


def report(verdict: Verdict) -> str:
    """The figures of a run as lines of text."""
    lines = [f"{name:24} {count:6}" for name, count in sorted(verdict.signals.items())]
    for kind, count in verdict.strikes.most_common():
        back = sorted(verdict.back_s.get(kind, []))
        times = f"serves again after {statistics.median(back):.2f} s, at worst {back[-1]:.2f} s" if back else ""
        lines.append(f"{kind:28} {count:5}   {times}")
    lines += [f"{name:44} {count:8}" for name, count in sorted(verdict.figures.items())]
    for name, use in sorted(verdict.last.items()):
        before = verdict.warm.get(name, use)
        lines.append(
            f"{name:10} {before.rss >> 20:5} -> {use.rss >> 20:5} MiB, {before.fds:3} -> {use.fds:3} files,"
            f" {use.seconds:.0f} s old"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) // 86400)
    parser.add_argument("--keep", action="store_true", help="keep the working directory of a good run, too")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="ssmprov-soak-"))
    print(f"soak of {given.seconds:g} s, seed {given.seed}", flush=True)
    verdict = run(home, given.seconds, given.seed, lambda text: print(text, flush=True))
    print(report(verdict))
    save(verdict)
    if verdict.findings:
        print(f"BROKEN: {len(verdict.findings)} findings; the history is in {home}")
        print("\n".join(verdict.findings[:50]))
        return 1
    if given.keep:
        print(f"the history is in {home}")
    else:
        shutil.rmtree(home)
    print("every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())
