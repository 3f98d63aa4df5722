"""The tracks that ship as examples: programs that compose rows, and contracts with probes."""

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
    """`compose` makes one row of a file. `wide` makes one of the wider rows with which stage_b continues."""

    name: str
    about: str
    scorer: str
    compose: Compose
    wide: Compose | None = None

    @property
    def contract(self) -> str:
        """The shipped eval contract, as TOML."""
        return (resources.files(__package__) / f"{self.name}.toml").read_text(encoding="utf-8")

    def rows(self, seed: int, count: int) -> Iterator[str]:
        """Rows, the same for the same seed. A row may appear more than once."""
        return _composed(self.compose, f"{self.name} {seed}", count)

    def wide_rows(self, seed: int, count: int) -> Iterator[str]:
        """Rows of the wider kind; empty if the track has none."""
        return _composed(self.wide, f"{self.name} wide {seed}", count) if self.wide else iter(())


def _composed(compose: Compose, seed: str, count: int) -> Iterator[str]:
    rng = Random(seed)
    for _ in range(count):
        yield compose(rng)


TRACKS = {
    track.name: track
    for track in (
        Track(name="svg", about="from tags to a small drawing", scorer="xml", compose=svg.compose, wide=svg.wide),
        Track(
            name="routing", about="from a request to a route: plan and agent", scorer="route", compose=routing.compose
        ),
        Track(
            name="code",
            about="from a tagged request to C, Python, SQL, JSON or Bash",
            scorer="code",
            compose=code.compose,
        ),
    )
}


def track_of(name: str) -> Track:
    """The track with this name. Raises BadRequest if there is none."""
    if name not in TRACKS:
        raise BadRequest(f"there is no track {name!r}{nearest(name, TRACKS)}")
    return TRACKS[name]
