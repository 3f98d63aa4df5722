"""Figures as a Markdown table and as JSON."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import time
from pathlib import Path

import msgspec
import zmq

from benchmarks.measure import Figure, Spread

VERSION = 1


class Machine(msgspec.Struct):
    """What the figures were taken on. `load` is the number of processes that wanted a core before the run began.

    `llama` is the version of llama-cpp-python, '' where it is not installed.
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


class Report(msgspec.Struct):
    """`taken` is in seconds since 1970."""

    machine: Machine
    quick: bool
    figures: list[Figure] = []
    taken: float = msgspec.field(default_factory=time.time)
    version: int = VERSION


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
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def markdown(report: Report) -> str:
    """One table: medians, with the smallest and the largest round in brackets."""
    rows = [
        "| figure | unit | measured | against | ratio | target | limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in report.figures:
        cells = [
            f"{figure.group}: {figure.name}",
            figure.unit,
            f"{figure.measured.label}: {_show(figure.measured.spread)}",
            f"{figure.against.label}: {_show(figure.against.spread)}",
            f"**{_number(figure.ratio.median)}** ({_number(figure.ratio.min)}..{_number(figure.ratio.max)})",
            figure.target,
            figure.limit,
        ]
        rows.append(f"| {' | '.join(cells)} |")
    found = report.machine
    llama = f", llama-cpp-python {found.llama}" if found.llama else ""
    rows += [
        "",
        f"{found.cores} cores of {found.cpu}, {found.memory_gib:g} GiB, {found.system}, Python {found.python}, "
        f"ZeroMQ {found.zmq}, SQLite {found.sqlite}, torch {found.torch}{llama}; load {found.load:g} before the run"
        + ("; quick: not to be quoted" if report.quick else ""),
    ]
    return "\n".join(rows)


def _show(spread: Spread) -> str:
    return f"{_number(spread.median)} ({_number(spread.min)}..{_number(spread.max)})"


def _number(value: float) -> str:
    """Three digits that count."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
