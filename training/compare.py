"""Measures both shipped models in one run on this machine: `python -m training.compare --outdir runs/compare`.

With `--budget MINUTES` it then trains both from scratch, side by side. Each runs its own command in a process with one
thread. It compares their losses by seconds and by tokens. Writes `compare.json` and `compare.md`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch

from models import mini
from training import control, plot, speeds
from training.asm_trainee import ASMTrainee
from training.data import batches
from training.evaluate import measure, report
from training.loop import Point, Settings, TrainingError, held_out_loss
from training.probes import CATEGORIES
from training.readers import Reader, open_reader
from training.rwkv7_trainee import Rwkv7Trainee
from training.trainee import Trainee

WINDOWS = Settings(seed=1, lanes=8, window=512)
"""Which held-out windows to use: those of the checks during training."""


@dataclass(slots=True)
class Candidate:
    """A model file, opened for reading and for training."""

    name: str
    path: Path
    reader: Reader
    trainee: Trainee[Any]


def candidate(name: str, path: Path) -> Candidate:
    reader = open_reader(path)
    kind = ASMTrainee if reader.architecture == "asm" else Rwkv7Trainee
    return Candidate(name, path, reader, kind.from_file(path))


def measured(candidates: list[Candidate], count: int, seed: int, rounds: int) -> dict[str, Any]:
    """All measurements of every candidate. Timings alternate between the candidates."""
    found: dict[str, Any] = {}
    for one in candidates:
        stream = batches(WINDOWS.seed, "held_out", WINDOWS.lanes, WINDOWS.window)
        found[one.name] = {
            "file_bytes": one.path.stat().st_size,
            "parameters": one.reader.parameters,
            "state_bytes": one.reader.state_bytes,
            "held_out_loss": round(held_out_loss(one.trainee, stream, WINDOWS.lanes), 4),
            "rates": report(measure(one.reader, seed, count)),
        }
    timed = speeds.in_turns({one.name: speeds.tasks(one.reader, one.trainee) for one in candidates}, rounds)
    for name, figures in timed.items():
        found[name]["tokens_a_second"] = {task: asdict(figure) for task, figure in figures.items()}
    return found


def markdown(found: dict[str, Any], about: dict[str, Any], curves: dict[str, list[Point]]) -> str:
    names = list(found)
    lines = [
        f"{about['threads']} thread, torch {about['torch']}, {about['count']} held-out prompts of each kind (seed "
        f"{about['seed']}), greedy; speeds are medians of {about['rounds']} alternating rounds (least, most).",
        "",
        *_table(("", *names), [_row(title, [value(found[name]) for name in names]) for title, value in _FIGURES]),
        "",
        *_table(
            ("exact (closed)", *names),
            [_row(kind, [_rate(found[name]["rates"][kind]) for name in names]) for kind in found[names[0]]["rates"]],
        ),
    ]
    if curves:
        lines += ["", *control.table(curves)]
    return "\n".join(lines) + "\n"


def _speed(task: str) -> Any:
    def said(one: dict[str, Any]) -> str:
        figure = one["tokens_a_second"][task]
        return f"{figure['median']:,.0f} ({figure['least']:,.0f}, {figure['most']:,.0f})"

    return said


def _mean(key: str) -> Any:
    return lambda one: f"{sum(one['rates'][kind][key] for kind in CATEGORIES) / len(CATEGORIES):.3f}"


_FIGURES: list[tuple[str, Any]] = [
    ("parameters", lambda one: f"{one['parameters']:,}"),
    ("file, bytes", lambda one: f"{one['file_bytes']:,}"),
    ("state per context, bytes", lambda one: f"{one['state_bytes']:,}"),
    ("held-out weighted loss, nats per byte", lambda one: f"{one['held_out_loss']:.4f}"),
    ("exact, mean of the kinds", _mean("exact")),
    ("closed, mean of the kinds", _mean("closed")),
    *((f"{task}, tokens per second", _speed(task)) for task in speeds.TASKS),
]


def _rate(rate: dict[str, float]) -> str:
    return f"{rate['exact']:.2f} ({rate['closed']:.2f})"


def _row(title: str, cells: list[str]) -> str:
    return f"| {title} | {' | '.join(cells)} |"


def _table(head: tuple[str, ...], rows: list[str]) -> list[str]:
    return [_row(head[0], list(head[1:])), f"|{'---|' * len(head)}", *rows]


@click.command(context_settings={"show_default": True})
@click.option("--outdir", type=click.Path(path_type=Path), default=Path("runs/compare"))
@click.option("--rwkv7", type=click.Path(path_type=Path), help="Use this file instead of the shipped rwkv7-mini.")
@click.option(
    "--asm", "asm_file", type=click.Path(path_type=Path), help="Use this file instead of the shipped asm-mini."
)
@click.option("--count", type=click.IntRange(min=1), default=60, help="Prompts of each kind.")
@click.option("--seed", default=0)
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Rounds of each timing.")
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    help="As a control, train both from scratch for this many minutes.",
)
@click.option("--compiled", is_flag=True, help="Train the control with torch.compile. Needs a C++ compiler.")
def main(
    outdir: Path,
    rwkv7: Path | None,
    asm_file: Path | None,
    count: int,
    seed: int,
    rounds: int,
    budget: float | None,
    compiled: bool,
) -> None:
    torch.set_num_threads(1)
    about = {"threads": 1, "torch": torch.__version__, "count": count, "seed": seed, "rounds": rounds, "budget": budget}
    try:
        outdir.mkdir(parents=True, exist_ok=True)
        candidates = [
            candidate("rwkv7-mini", rwkv7 or mini.path()),
            candidate("asm-mini", asm_file or mini.asm_path()),
        ]
        found = measured(candidates, count, seed, rounds)
        curves = control.run(outdir, budget, compiled) if budget else {}
    except (TrainingError, OSError) as error:
        raise click.ClickException(str(error)) from None
    content = {
        **about,
        "models": found,
        "control": {name: [asdict(p) for p in curve] for name, curve in curves.items()},
    }
    (outdir / "compare.json").write_text(json.dumps(content, indent=1) + "\n")
    text = markdown(found, about, curves)
    (outdir / "compare.md").write_text(text)
    for by in ("seconds", "tokens") if curves else ():
        if not plot.draw_losses(curves, outdir / f"control-{by}.png", by):
            click.echo(plot.MISSING)
    click.echo(text)


if __name__ == "__main__":
    main()
