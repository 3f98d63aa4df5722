"""`ssmprov bench`: measure, print Markdown tables, and write them with the same as JSON and with plots as PNG."""

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


@click.command("bench")
@click.option("--only", multiple=True, type=click.Choice(list(GROUPS)), help="This group alone; may be repeated.")
@click.option("--quick", is_flag=True, help="The small model and few samples: to try it out, not to quote.")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="The JSON file to write.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("bench-out"),
    show_default=True,
    help="Where all of it goes, and what is written while measuring: choose the disk to be measured.",
)
@click.option(
    "--show",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Measure nothing: print and draw what an earlier run wrote as JSON.",
)
def bench(only: tuple[str, ...], quick: bool, json_file: Path | None, out: Path, show: Path | None) -> None:
    """Measure ssmprov against bare sockets, bare models, the bare disk and llama-server, side by side."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
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
        raise click.ClickException(f"not measured to the end: {', '.join(failed)}; what went wrong stands above")


def _measure(names: tuple[str, ...], quick: bool, out: Path, path: Path) -> tuple[report.Report, list[str]]:
    """Measure some groups, writing down what there is after each; and which of them failed."""
    measured = report.Report(machine=report.machine(), quick=quick)
    failed = []
    with tempfile.TemporaryDirectory(prefix="run-", dir=out) as scratch:
        for name in names:
            directory = Path(scratch).absolute() / name
            directory.mkdir()
            plan = Plan(directory, quick, lambda text: click.echo(text, err=True))
            try:
                measured.add(load(name)(plan))
            except Exception as error:  # the other groups are still worth their time
                click.echo(f"{name}: {type(error).__name__}: {error}", err=True)
                failed.append(name)
            report.write(measured, path)
    return measured, failed


def _read(path: Path) -> report.Report:
    try:
        return report.read(path)
    except (msgspec.MsgspecError, OSError) as error:
        raise click.UsageError(f"{path} is no file that `ssmprov bench` of this version wrote: {error}") from None
