"""Measuring: every round measures each side once, so that a disturbance affects both sides."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. `scratch` is an empty directory on the disk to measure; `say` prints progress."""

    scratch: Path
    quick: bool
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        return 3 if self.quick else 9

    def size(self, quick: int, full: int) -> int:
        """A number of samples, tokens or bytes."""
        return quick if self.quick else full


class Spread(msgspec.Struct, frozen=True):
    """The results of all rounds."""

    median: float
    min: float
    max: float
    values: list[float]


class Side(msgspec.Struct, frozen=True):
    """One of the two things that a figure compares."""

    label: str
    spread: Spread


class Bound(msgspec.Struct, frozen=True):
    """A target for a figure's ratio or its measured value: at most or at least `value`."""

    kind: Literal["at most", "at least"]
    value: float
    of: Literal["ratio", "measured"] = "ratio"


def at_most(value: float, *, of: Literal["ratio", "measured"] = "ratio") -> Bound:
    return Bound("at most", value, of)


def at_least(value: float, *, of: Literal["ratio", "measured"] = "ratio") -> Bound:
    return Bound("at least", value, of)


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`measured` over `against`, in `unit`; the ratio is taken within each round.

    `target` is the goal. `limit` describes a hard limit if that is not the other side itself.
    """

    group: str
    name: str
    unit: str
    measured: Side
    against: Side
    ratio: Spread
    target: Bound | None
    limit: str

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None without one."""
        if self.target is None:
            return None
        found = (self.ratio if self.target.of == "ratio" else self.measured.spread).median
        return found <= self.target.value if self.target.kind == "at most" else found >= self.target.value


class Point(msgspec.Struct, frozen=True):
    """The results of all rounds at one point of a curve."""

    x: float
    spread: Spread


class Line(msgspec.Struct, frozen=True):
    label: str
    points: list[Point]


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """One or more lines of `y` over `x`. `x` and `y` name the quantities or units."""

    group: str
    name: str
    x: str
    y: str
    lines: list[Line]
    log_x: bool = False
    log_y: bool = False


def spread(values: Sequence[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values), list(values))


def figure(
    group: str,
    name: str,
    unit: str,
    measured: tuple[str, Sequence[float]],
    against: tuple[str, Sequence[float]],
    *,
    target: Bound | None = None,
    limit: str = "",
) -> Figure:
    """Make a figure of two sides, each with its label and one value per round."""
    ratios = [a / b for a, b in zip(measured[1], against[1], strict=True)]
    ours, theirs = (Side(label, spread(values)) for label, values in (measured, against))
    return Figure(
        group=group,
        name=name,
        unit=unit,
        measured=ours,
        against=theirs,
        ratio=spread(ratios),
        target=target,
        limit=limit,
    )


def curve(
    group: str,
    name: str,
    *,
    x: str,
    y: str,
    lines: Mapping[str, Mapping[float, Sequence[float]]],
    log_x: bool = False,
    log_y: bool = False,
) -> Curve:
    """Make a curve. Each line has the values of all rounds at its points."""
    drawn = [
        Line(label, [Point(at, spread(values)) for at, values in sorted(points.items())])
        for label, points in lines.items()
    ]
    return Curve(group=group, name=name, x=x, y=y, lines=drawn, log_x=log_x, log_y=log_y)


def interleave(rounds: int, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Run every side once per round, in rotating order. Returns the results of each side by round."""
    names = list(sides)
    taken: dict[str, list[T]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            taken[name].append(sides[name]())
    return taken


def median_s(count: int, action: Callable[[], object]) -> float:
    """The median duration of an action, in seconds."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        action()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def cpu_s(pid: int) -> float:
    """The CPU time of all threads of a process. Linux derives the clock's number from the process id."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9
