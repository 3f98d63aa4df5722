"""Writes figures and curves as Markdown tables and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import zmq

from benchmarks.measure import Curve, Figure, Line, Spread
from ssmprov import durable

VERSION = 2


class Machine(msgspec.Struct, kw_only=True):
    """The machine of the measurements. `load` is the number of processes that wanted a core before the run.

    `llama` is the version of llama-cpp-python, '' if it is not installed.
    """

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    zmq: str
    sqlite: str
    torch: str
    load: float
    llama: str = ""


class Report(msgspec.Struct, kw_only=True):
    """All results of a run. `taken` is in seconds since 1970."""

    machine: Machine
    quick: bool
    figures: list[Figure] = []
    curves: list[Curve] = []
    taken: float = msgspec.field(default_factory=time.time)
    version: int = VERSION

    def add(self, found: Sequence[Figure | Curve]) -> None:
        self.figures += [one for one in found if isinstance(one, Figure)]
        self.curves += [one for one in found if isinstance(one, Curve)]


def machine() -> Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(memory, 1),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        zmq=f"{zmq.zmq_version()} (pyzmq {zmq.pyzmq_version()})",
        sqlite=sqlite3.sqlite_version,
        torch=importlib.metadata.version("torch"),
        load=round(os.getloadavg()[0], 2),
        llama=_version("llama-cpp-python"),
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.replace(path, msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def read(path: Path) -> Report:
    """Read a file made by `write`. Raises MsgspecError for anything else."""
    found = msgspec.json.decode(path.read_bytes(), type=Report)
    if found.version != VERSION:
        raise msgspec.ValidationError(f"it has version {found.version} instead of {VERSION}")
    return found


def markdown(report: Report) -> str:
    """One section per group: medians, with the smallest and the largest round in brackets."""
    groups = dict.fromkeys([*(one.group for one in report.figures), *(one.group for one in report.curves)])
    parts = []
    for group in groups:
        parts.append(f"### {group}")
        figures = [one for one in report.figures if one.group == group]
        if figures:
            parts.append("\n".join(_figures(figures)))
        parts += ["\n".join(_curve(one)) for one in report.curves if one.group == group]
    found = report.machine
    llama = f", llama-cpp-python {found.llama}" if found.llama else ""
    parts.append(
        f"{found.cores} cores of {found.cpu}, {found.memory_gib:g} GiB, {found.system}, Python {found.python}, "
        f"ZeroMQ {found.zmq}, SQLite {found.sqlite}, torch {found.torch}{llama}; load {found.load:g} before the run"
        + ("; quick run, not for publication" if report.quick else "")
    )
    return "\n\n".join(parts)


def _figures(figures: list[Figure]) -> list[str]:
    rows = [
        "| figure | unit | measured | against | ratio | target | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        cells = [
            figure.name,
            figure.unit,
            f"{figure.measured.label}: {_show(figure.measured.spread)}",
            f"{figure.against.label}: {_show(figure.against.spread)}",
            f"**{number(figure.ratio.median)}** ({number(figure.ratio.min)}..{number(figure.ratio.max)})",
            _target(figure),
            figure.limit,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _target(figure: Figure) -> str:
    if figure.target is None:
        return ""
    unit = f" {figure.unit}" if figure.target.of == "measured" else ""
    return f"{figure.target.kind} {number(figure.target.value)}{unit}: {'met' if figure.met else '**missed**'}"


def _curve(curve: Curve) -> list[str]:
    """One row per point, one column per line."""
    rows = [
        f"{curve.name} ({curve.y}):",
        "",
        f"| {curve.x} | {' | '.join(line.label for line in curve.lines)} |",
        f"|---{'|---' * len(curve.lines)}|",
    ]
    for x in sorted({point.x for line in curve.lines for point in line.points}):
        rows.append(f"| {number(x)} | {' | '.join(_at(line, x) for line in curve.lines)} |")
    return rows


def _at(line: Line, x: float) -> str:
    return next((_show(point.spread) for point in line.points if point.x == x), "")


def _show(spread: Spread) -> str:
    return f"{number(spread.median)} ({number(spread.min)}..{number(spread.max)})"


def number(value: float) -> str:
    """A number with three significant digits."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
