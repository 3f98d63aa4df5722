"""How values are shown to people and programs: aligned columns, sizes, times, hashes; structs as plain dicts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ssmprov.terminal import printable


def plain(value: Any) -> Any:
    """Structs as dicts with every field, defaults too; bytes as hex. What `--json` prints."""
    if isinstance(value, msgspec.Struct):
        return {key: plain(inner) for key, inner in msgspec.structs.asdict(value).items()}
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value.hex() if isinstance(value, bytes) else value


def columns(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """The lines of a table. Columns of numbers are aligned to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(headers))]
    lines = []
    for line in (list(headers), *cells):
        padded = (
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return lines


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return printable(str(value))


def size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def moment(seconds: float) -> str:
    """Seconds since 1970 as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else "-"


def short(digest: str) -> str:
    """An object's hash as it can be typed back: `#` and 12 digits."""
    return f"#{digest[:12]}" if digest else "-"
