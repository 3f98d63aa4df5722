"""`eval_matrix.json`: the latest evaluation of each run, with its gate, risks and samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from specialists.contract import Contract
from specialists.evaluate import SHOWN, Evaluation
from specialists.ledger import Run, now
from specialists.risks import Risk
from specialists.stages import Check, Gate, Stage, judge
from ssmprov import durable
from ssmprov.errors import Corrupt

SCHEMA = "ssmprov.eval_matrix.v1"
FILE = "eval_matrix.json"


class Matrix(msgspec.Struct):
    """Entries by run id, in the order of the runs."""

    schema: str = SCHEMA
    entries: dict[str, dict[str, Any]] = {}


def read_matrix(folder: Path) -> Matrix:
    """The matrix of a specialist's folder. Raises Corrupt."""
    path = folder / FILE
    if not path.exists():
        return Matrix()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Matrix)
    except msgspec.DecodeError as error:
        raise Corrupt(f"{path} is not a valid matrix: {error}; move it away and evaluate again") from None


def upsert(folder: Path, run: Run, entry: dict[str, Any]) -> None:
    """Put a run's evaluation into the matrix. It replaces an earlier one."""
    matrix = read_matrix(folder)
    matrix.entries[run.id] = entry
    matrix.entries = dict(sorted(matrix.entries.items(), key=lambda item: item[1]["order"]))
    durable.replace(folder / FILE, msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n")


def entry_of(
    run: Run,
    contract: Contract,
    digest: str,
    evaluation: Evaluation,
    risks: list[Risk],
    max_tokens: int,
    checks: list[Check],
) -> dict[str, Any]:
    return {
        "run": run.id,
        "order": run.order,
        "stage": run.stage,
        "label": run.label,
        "object": run.made,
        "evaluated": now(),
        "contract": digest,
        "scorer": contract.scorer,
        "samples": contract.samples,
        "max_tokens": max_tokens,
        "metrics": evaluation.metrics,
        "unjudged": evaluation.unjudged,
        "workers": evaluation.workers,
        "gate": [
            {"metric": check.metric, "value": check.value, "least": check.least, "passed": check.passed}
            for check in checks
        ],
        "risks": [
            {"name": risk.name, "passed": risk.passed, "why": risk.why, "answer": risk.answer[:SHOWN]} for risk in risks
        ],
        "probes": [
            {
                "id": probed.probe.id,
                "type": probed.probe.kind,
                "prompt": probed.probe.prompt,
                "passes": probed.passes,
                "samples": [
                    {
                        "answer": sample.answer.text[:SHOWN],
                        "stop": sample.answer.stop,
                        "tokens": sample.answer.tokens,
                        "valid": sample.score.valid,
                        "prefix": sample.score.prefix,
                        "clean": sample.clean,
                        "adherence": round(sample.score.adherence, 4),
                        "why": sample.score.why,
                    }
                    for sample in probed.samples
                ],
            }
            for probed in evaluation.probes
        ],
    }


def checks_of(folder: Path, run: Run, gates: dict[Stage, Gate], contract: str) -> list[Check] | None:
    """The gate of a run, judged by its evaluation; None if this object was not evaluated with this contract."""
    entry = read_matrix(folder).entries.get(run.id)
    if entry is None or entry["object"] != run.made or entry["contract"] != contract:
        return None
    return judge(run.stage, entry["metrics"], gates)
