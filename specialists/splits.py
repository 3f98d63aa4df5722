"""Train, validation and test: the hash of a row's prompt decides its part, so equal prompts stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from specialists.rows import Row
from ssmprov.errors import BadRequest

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
SHOWN = 8


@dataclass(frozen=True, slots=True)
class Shares:
    """The share of rows for each part. The shares sum to 1."""

    train: float = 0.8
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        shares = (self.train, self.validation, self.test)
        if any(not 0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
            raise BadRequest(f"the shares of train, validation and test must be positive and sum to 1, not {shares}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contamination:
    """A row that is also in another part, with the same text (`row`) or only the same prompt (`prompt`)."""

    kind: str
    part: Part
    line: int
    other: Part
    other_line: int

    def __str__(self) -> str:
        what = "the row" if self.kind == "row" else "the prompt of the row"
        return f"{what} in line {self.line} of {self.part} is also in line {self.other_line} of {self.other}"


@dataclass(slots=True)
class Split:
    parts: dict[Part, list[Row]] = field(default_factory=lambda: {part: [] for part in PARTS})

    def refuse_empty(self) -> None:
        """Raises BadRequest if a part has no rows."""
        for part, rows in self.parts.items():
            if not rows:
                count = sum(map(len, self.parts.values()))
                raise BadRequest(
                    f"{part} got no rows: the {count} rows have too few different prompts. Add rows, change the seed "
                    "of the split, or give a file for each part"
                )


def split(rows: Sequence[Row], shares: Shares, seed: int) -> Split:
    """The rows of each part, in their order. A row's part depends only on its prompt, the shares and the seed."""
    found = Split()
    for row in rows:
        found.parts[part_of(row.prompt, shares, seed)].append(row)
    return found


def part_of(prompt: str, shares: Shares, seed: int) -> Part:
    digest = hashlib.sha256(f"{seed}\0{prompt}".encode()).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < shares.train:
        return "train"
    return "validation" if draw < shares.train + shares.validation else "test"


def contamination(parts: Mapping[Part, Sequence[Row]]) -> list[Contamination]:
    """The rows that are in two parts: for each row, the first match of each kind."""
    rows: dict[str, tuple[Part, int]] = {}
    prompts: dict[str, tuple[Part, int]] = {}
    found = []
    for part in PARTS:
        for row in parts.get(part, ()):
            for kind, digest, known in (("row", row.digest, rows), ("prompt", row.prompt_digest, prompts)):
                other, other_line = known.setdefault(digest, (part, row.line))
                if other != part:
                    found.append(Contamination(kind=kind, part=part, line=row.line, other=other, other_line=other_line))
                    break
    return found


def refuse_contamination(parts: Mapping[Part, Sequence[Row]]) -> None:
    """Raises BadRequest, which lists the first rows that are in two parts, if there are any."""
    if found := contamination(parts):
        told = "\n".join(f"  {one}" for one in found[:SHOWN])
        more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BadRequest(f"the parts overlap:\n{told}{more}")
