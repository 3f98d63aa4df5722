"""`python -P -m benchmarks`: measure, print a Markdown table, and write the same as JSON."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from benchmarks import composer, contexts, decode, llama, report, round_trip
from benchmarks.measure import Figure, Plan

GROUPS: dict[str, Callable[[Plan], list[Figure]]] = {
    "round-trip": round_trip.measure,
    "decode": decode.measure,
    "contexts": contexts.measure,
    "llama": llama.measure,
    composer.GROUP: composer.measure,
}


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="This group alone; may be repeated.")
@click.option("--quick", is_flag=True, help="The small model and few samples: to try it out, not to quote.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="The JSON file to write.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-out"),
    show_default=True,
    help="Where the JSON goes, and what is written while measuring: choose the disk to be measured.",
)
def main(only: tuple[str, ...], quick: bool, json_file: Path | None, out: Path) -> None:
    """Measure ssmprov against bare sockets, the bare model, the bare disk and bare llama.cpp."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
    out.mkdir(parents=True, exist_ok=True)
    measured = report.Report(machine=report.machine(), quick=quick)
    with tempfile.TemporaryDirectory(prefix="run-", dir=out) as scratch:
        plan = Plan(Path(scratch).absolute(), quick, lambda text: click.echo(text, err=True))
        for name in only or GROUPS:
            measured.figures += GROUPS[name](plan)
    click.echo(report.markdown(measured))
    path = json_file or out / "benchmarks.json"
    report.write(measured, path)
    click.echo(f"written to {path}", err=True)


if __name__ == "__main__":
    main()
