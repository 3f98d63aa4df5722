"""Trains both architectures from scratch with the same budget, side by side, with their own commands."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from ssmprov import rooms
from training import checkpoint
from training.loop import Point, TrainingError

COMMANDS = {"rwkv7": "training.mini", "asm": "training.asm_mini"}


def run(outdir: Path, minutes: float, compiled: bool) -> dict[str, list[Point]]:
    """The curves of both. Raises TrainingError if one of them fails, with the last line of its output."""
    options = ["--minutes", str(minutes), "--lanes", "8", "--window", "512", *(["--compiled"] if compiled else [])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    directories = {name: outdir / f"control-{name}" for name in COMMANDS}
    for directory in directories.values():
        if (directory / checkpoint.NAME).exists():
            raise TrainingError(f"{directory} already contains a run: choose another --outdir")
        directory.mkdir(parents=True, exist_ok=True)
    running = {}
    for name, module in COMMANDS.items():
        directory = directories[name]
        with (directory / "output.txt").open("wb") as output:
            command = rooms.command(module, "--outdir", str(directory), *options)
            running[name] = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        codes = {name: process.wait() for name, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()  # no effect if it has ended; otherwise it saves a checkpoint
    for name, code in codes.items():
        if code:
            said = (directories[name] / "output.txt").read_text(errors="replace").strip().splitlines()
            raise TrainingError(f"{COMMANDS[name]} ended with code {code}: {said[-1] if said else 'no output'}")
    return {name: curve_of(directory / "losses.json") for name, directory in directories.items()}


def curve_of(path: Path) -> list[Point]:
    return [Point(**point) for point in json.loads(path.read_text())["curve"]]


def table(curves: dict[str, list[Point]], rows: int = 8) -> list[str]:
    """Mean training loss after the same number of seconds, and of tokens, as Markdown tables."""
    lines = list[str]()
    for by in ("seconds", "tokens"):
        end = min(getattr(curve[-1], by) for curve in curves.values())
        lines += ["", f"| {by} | {' | '.join(f'{name}, loss' for name in curves)} |", f"|---|{'---|' * len(curves)}"]
        for number in range(1, rows + 1):
            at = end * number / rows
            cells = [_near(curve, by, at, end / rows) for curve in curves.values()]
            lines.append(f"| {at:,.0f} | {' | '.join(cells)} |")
    ends = ", ".join(f"{name} {curve[-1].held_out} after {curve[-1].tokens:,} tokens" for name, curve in curves.items())
    return [*lines[1:], "", f"Held out at the end: {ends}."]


def _near(curve: list[Point], by: str, at: float, span: float) -> str:
    """The mean loss of the steps in the span that ends at `at`."""
    losses = [point.loss for point in curve if at - span < getattr(point, by) <= at]
    return f"{sum(losses) / len(losses):.3f}" if losses else "-"
