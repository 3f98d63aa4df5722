"""`make fuzz SECONDS=60 SEED=1 TARGET=all`: run the fuzzer, keep what it finds, and say what it saw.

TARGET is the name of one target, several with commas between, `all` of them in turn, or `live` for real processes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import resource
import sys
import time
from pathlib import Path

from tqdm import tqdm

from fuzz.engine import TAKEN, Fuzzer, Tally, Target, keep, kept, smaller
from fuzz.targets import all_targets

SLICE = 2000
"""Runs between two looks at the progress line."""

ROUND = 250_000
"""Runs with one seed, then the next one follows: what one of them was led to does not take all the time."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -P -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--runs", type=int, default=0, help="end each target after so many runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", default="all")
    parser.add_argument("--attacks", default="", help="of `live`: which ones, with commas between")
    parser.add_argument("--outcomes", action="store_true", help="list how the runs ended")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    options = parser.parse_args()
    if options.target == "live":
        from fuzz.live import run  # it starts processes: only where they are asked for

        return run(options.seconds, options.seed, options.attacks, options.json)
    known = all_targets()
    names = list(known) if options.target == "all" else options.target.split(",")
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no target {unknown[0]!r}: there are {', '.join(known)}, all and live")
    figures = [
        fuzz(known[name], options.seed, options.seconds / len(names), options.runs, outcomes=options.outcomes)
        for name in names
    ]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 1 if any(row["findings"] for row in figures) else 0


def fuzz(target: Target, seed: int, seconds: float, runs: int, *, outcomes: bool) -> dict[str, object]:
    """Fuzz one target; its figures. What it finds goes into the corpus."""
    tally, known = Tally(), kept(target.name)
    until = time.monotonic() + seconds
    with (
        tqdm(desc=target.name, unit="run", unit_scale=True, total=runs or None, mininterval=1.0, leave=False) as bar,
        contextlib.suppress(KeyboardInterrupt),  # then what there is so far is told
    ):
        for number in itertools.count():
            fuzzer = Fuzzer(target, seed + number, known)
            try:
                while fuzzer.tally.runs < ROUND and time.monotonic() < until and not 0 < runs <= tally.runs:
                    before = fuzzer.tally.runs
                    fuzzer.run(min(SLICE, ROUND - before, runs - tally.runs if runs else SLICE), until)
                    bar.update(fuzzer.tally.runs - before)
                    tally.runs += fuzzer.tally.runs - before
            finally:
                tally.add(fuzzer.tally)
            if fuzzer.tally.runs < ROUND:
                break
    findings = {}
    for finding in tally.findings.values():
        name = keep(target.name, smaller(target, finding).data)
        findings[name] = finding.what
        print(f"{target.name}: {finding.what}\n  corpus/{target.name}/{name}\n{finding.trace}", file=sys.stderr)
    rate = tally.runs / tally.seconds if tally.seconds else 0.0
    taken = sum(count for outcome, count in tally.outcomes.items() if outcome.startswith(TAKEN))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{target.name:11} {tally.runs:>10,} runs {rate:>9,.0f}/s {taken / max(1, tally.runs):>6.1%} taken "
        f"{len(tally.outcomes):>5} outcomes {tally.slowest_s * 1000:>7.1f} ms at most {memory:>5} MiB "
        f"{len(findings):>3} findings",
        flush=True,
    )
    if outcomes:
        for outcome, count in tally.outcomes.most_common():
            print(f"  {count:>10,}  {outcome}")
    return {
        "target": target.name,
        "runs": tally.runs,
        "rate": round(rate),
        "taken": taken,
        "outcomes": len(tally.outcomes),
        "slowest_ms": round(tally.slowest_s * 1000, 1),
        "findings": findings,
    }


if __name__ == "__main__":
    sys.exit(main())
