"""`ssmprov bench`: runs the benchmarks, prints Markdown tables, and writes Markdown, JSON and PNG plots."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from benchmarks import plots, report
from benchmarks.groups import GROUPS, load
from benchmarks.measure import Plan
from ssmprov.process import heard


@click.command("bench")
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="Run only this group. Can be repeated.")
@click.option("--quick", is_flag=True, help="Use the small model and few samples: a trial run, not for publication.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="JSON file to write.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-out"),
    show_default=True,
    help="Folder for the results and for the data of the benchmarks. Choose a folder on the disk to measure.",
)
@click.option(
    "--show",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Measure nothing. Print and plot the JSON file of an earlier run.",
)
def bench(only: tuple[str, ...], quick: bool, json_file: Path | None, out: Path, show: Path | None) -> None:
    """Measure ssmprov against bare sockets, bare models, the bare disk and llama-server, side by side."""
    for number in heard(signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that started processes are stopped
    out.mkdir(parents=True, exist_ok=True)
    failed: list[str] = []
    if show is None:
        path = json_file or out / "benchmarks.json"
        measured, failed = _measure(only or tuple(GROUPS), quick, out, path)
        click.echo(f"written to {path}", err=True)
    else:
        measured = _read(show)
    text = report.markdown(measured)
    click.echo(text)
    (out / "benchmarks.md").write_text(text + "\n", encoding="utf-8")
    drawn = plots.draw(measured, out)
    click.echo(f"drawn into {out}: {', '.join(path.name for path in drawn)}" if drawn else plots.MISSING, err=True)
    if failed:
        raise click.ClickException(f"these groups failed: {', '.join(failed)}. The errors are above")


def _measure(names: tuple[str, ...], quick: bool, out: Path, path: Path) -> tuple[report.Report, list[str]]:
    """Run these groups and write the report after each. Returns the report and the groups that failed."""
    measured = report.Report(machine=report.machine(), quick=quick)
    failed = []
    with tempfile.TemporaryDirectory(prefix="run-", dir=out) as scratch:
        for name in names:
            directory = Path(scratch).absolute() / name
            directory.mkdir()
            plan = Plan(directory, quick, lambda text: click.echo(text, err=True))
            try:
                measured.add(load(name)(plan))
            except Exception as error:  # still run the other groups
                click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
                failed.append(name)
            report.write(measured, path)
    return measured, failed


def _read(path: Path) -> report.Report:
    try:
        return report.read(path)
    except (msgspec.MsgspecError, OSError) as error:
        raise click.UsageError(f"{path} was not written by `ssmprov bench` of this version: {error}") from None
