"""The rows of a plan: reads, checks and splits them, and removes training rows whose prompts the probes use."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specialists.contract import Contract
from specialists.grammars import grammar_of, tags_of
from specialists.plan import Plan
from specialists.rows import Report, Row, read_rows
from specialists.splits import PARTS, Part, Split, refuse_contamination, split
from ssmprov.errors import BadRequest


@dataclass(slots=True)
class Data:
    """The rows of each part. `held_out` counts training rows that were removed because a probe uses their prompt."""

    parts: dict[Part, list[Row]]
    reports: list[Report]
    held_out: int

    @property
    def summary(self) -> dict[str, Any]:
        """The summary for `data.json` and the ledger."""
        return {
            "files": [asdict(report) for report in self.reports],
            "rows": {part: len(rows) for part, rows in self.parts.items()},
            "held_out": self.held_out,
        }


def load_data(plan: Plan, folder: Path, contract: Contract, rows: str = "") -> Data:
    """The rows of a plan, or of the file `rows` that a stage uses instead.

    Raises BadRequest if a file is missing or has invalid rows, if a part gets no rows, or if two parts share rows.
    """
    table = plan.data
    if table.of_parts and not rows:
        given: dict[Part, str] = {"train": table.train, "validation": table.validation, "test": table.test}
        found = Split()
        reports = []
        for part in PARTS:
            found.parts[part], report = _read(plan, folder, given[part])
            reports.append(report)
        refuse_contamination(found.parts)
    else:
        if not (rows or table.rows):
            raise BadRequest("[data] names no rows: add `rows`, or `train`, `validation` and `test`")
        all_rows, report = _read(plan, folder, rows or table.rows)
        found, reports = split(all_rows, plan.shares, table.split_seed), [report]
    asked = {_sense(probe.prompt) for probe in contract.probe}
    held_out = 0
    for part in ("train", "validation"):
        kept = [row for row in found.parts[part] if _sense(row.prompt) not in asked]
        held_out += len(found.parts[part]) - len(kept)
        found.parts[part] = kept
    found.refuse_empty()
    return Data(found.parts, reports, held_out)


def _sense(prompt: str) -> str | frozenset[str]:
    """What a prompt asks for. If a prompt has only tags, their order does not matter."""
    tags, end = tags_of(prompt)
    return frozenset(tags) if tags and end == len(prompt) else prompt


def _read(plan: Plan, folder: Path, name: str) -> tuple[list[Row], Report]:
    path = folder / name
    if not path.is_file():
        raise BadRequest(f"{path} does not exist, but the plan names it as a file of {plan.track} rows")
    rows, report = read_rows(path, grammar_of(plan.track), ascii_only=plan.data.ascii)
    report.refuse()
    return rows, report
