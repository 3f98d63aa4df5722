"""Tracks that ship as examples: rows composed by a program, a contract with probes, and a plan to start from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from random import Random

from specialists.tracks import code, routing, svg
from ssmprov.errors import BadRequest, nearest

Compose = Callable[[Random], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """`compose` makes one row, as it stands in a file; `wide` one of the wider kind that stage_b goes on with."""

    name: str
    about: str
    scorer: str
    compose: Compose
    wide: Compose | None = None

    @property
    def contract(self) -> str:
        """The shipped eval contract, TOML."""
        return (resources.files(__package__) / f"{self.name}.toml").read_text(encoding="utf-8")

    def rows(self, seed: int, count: int) -> Iterator[str]:
        """Rows, the same for the same seed; a row may come more than once."""
        return _composed(self.compose, f"{self.name} {seed}", count)

    def wide_rows(self, seed: int, count: int) -> Iterator[str]:
        """Rows of the wider kind; none where a track has no such."""
        return _composed(self.wide, f"{self.name} wide {seed}", count) if self.wide else iter(())


def _composed(compose: Compose, seed: str, count: int) -> Iterator[str]:
    rng = Random(seed)
    for _ in range(count):
        yield compose(rng)


TRACKS = {
    track.name: track
    for track in (
        Track(name="svg", about="tags to a small drawing", scorer="xml", compose=svg.compose, wide=svg.wide),
        Track(name="routing", about="a request to a route: plan and agent", scorer="route", compose=routing.compose),
        Track(
            name="code", about="a tagged request to C, Python, SQL, JSON or Bash", scorer="code", compose=code.compose
        ),
    )
}


def track_of(name: str) -> Track:
    """Raises BadRequest for a name that is none."""
    if name not in TRACKS:
        raise BadRequest(f"there is no track {name!r}{nearest(name, TRACKS)}")
    return TRACKS[name]
