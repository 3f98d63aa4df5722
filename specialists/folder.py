"""A specialist's folder: `specialists/NAME/` in the working directory, with its plan, ledger, matrix and runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from specialists.contract import MAX_TEXT, Contract, contract_of, read_contract
from specialists.data import Data, load_data
from specialists.grammars import grammar_of
from specialists.ledger import NAME, Ledger
from specialists.matrix import read_matrix
from specialists.plan import FILE as PLAN_FILE
from specialists.plan import Plan, read_plan
from specialists.promotion import standing_of
from specialists.rows import Row, read_rows
from specialists.splits import Shares, split
from specialists.stages import GATES, Gate, Stage, read_gates
from specialists.tracks import TRACKS, track_of
from ssmprov import durable, encoding
from ssmprov.configuration import private_directory
from ssmprov.errors import BadRequest, Conflict, NotFound
from ssmprov.names import SPECIALISTS

VIEW = "pipeline.json"
DATA = "data.json"
MOST_PROBES = 24
"""How many probes a new contract for the user's own rows has."""

PLAN = """\
schema = "ssmprov.specialist.v1"
name = "{name}"
track = "{track}"
model = "{model}"          # the model to prime or tune, or to start from
public = "{public}"        # the name that filters use
seed = {seed}
roles = ["USER", "INTERFACE"]

[data]
rows = "rows.txt"
shares = [0.8, 0.1, 0.1]   # train, validation, test
ascii = true

[eval]
contract = "contract.toml"

[stages.stage_a]
examples = {examples}
"""


WIDE = """
[stages.stage_b]
rows = "rows_b.txt"        # the same tasks, with more ways to ask
"""


@dataclass(slots=True, kw_only=True)
class Specialist:
    """A specialist's folder, with its plan and contract, both checked."""

    path: Path
    plan: Plan
    contract: Contract
    contract_digest: str
    gates: Mapping[Stage, Gate]

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.path)

    @property
    def names(self) -> str:
        """The prefix of the names of its runs' contexts."""
        return f"{SPECIALISTS}/{self.plan.name}"

    def data(self, stage: Stage) -> Data:
        """The checked rows of a stage. Writes the findings to `data.json`."""
        found = load_data(self.plan, self.path, self.contract, self.plan.stage(stage).rows)
        durable.replace(self.path / DATA, msgspec.json.format(msgspec.json.encode(found.summary), indent=1) + b"\n")
        return found

    def materialise(self) -> None:
        """Write the files in which other programs read plan, ledger and matrix."""
        ledger = self.ledger
        standing = standing_of(ledger)
        view: dict[str, Any] = {
            "schema": "ssmprov.pipeline.v1",
            "name": self.plan.name,
            "track": self.plan.track,
            "public": self.plan.public,
            "promoted": standing,
            "runs": ledger.runs(),
            "metrics": {run: entry["metrics"] for run, entry in read_matrix(self.path).entries.items()},
        }
        durable.replace(self.path / VIEW, msgspec.json.format(msgspec.json.encode(view), indent=1) + b"\n")


def path_of(home: Path, name: str) -> Path:
    """The folder of a specialist. Raises BadRequest if the name is not valid."""
    if not NAME.match(name):
        raise BadRequest(
            f"{name!r} is not a valid name for a specialist: use up to 48 lowercase letters, digits, - and _"
        )
    return home / SPECIALISTS / name


def open_specialist(home: Path, name: str) -> Specialist:
    """Opens a specialist. Raises NotFound, and BadRequest if the plan, the contract or the gate file is not valid."""
    path = path_of(home, name)
    if not path.is_dir():
        known = sorted(folder.name for folder in (home / SPECIALISTS).glob("*") if (folder / PLAN_FILE).is_file())
        told = f": choose from {', '.join(known)}" if known else ": `ssmprov specialist init` creates one"
        raise NotFound(f"there is no specialist {name!r}{told}")
    plan = read_plan(path)
    if plan.name != name:
        raise BadRequest(
            f"{path / PLAN_FILE} has the name {plan.name!r}, but its folder is called {name!r}: make them equal"
        )
    contract_path = path / plan.eval.contract
    if not contract_path.is_file():
        raise BadRequest(f"{contract_path} does not exist, but the plan names it as its contract")
    contract, digest = read_contract(contract_path)
    if contract.track != plan.track:
        raise BadRequest(
            f"{contract_path} is a contract for the track {contract.track}, but the plan is for {plan.track}"
        )
    gates = read_gates(path / plan.eval.gates) if plan.eval.gates else GATES
    return Specialist(path=path, plan=plan, contract=contract, contract_digest=digest, gates=gates)


def init(
    home: Path,
    name: str,
    track: str,
    model: str,
    public: str,
    *,
    count: int,
    seed: int,
    examples: int,
    rows: Path | None = None,
) -> Specialist:
    """Make a new folder with a plan, rows and a contract. The rows are those of the track, or the user's own.

    For the user's own rows in the track `pairs`, the contract's probes are rows that the split puts into the test part.
    Raises Conflict if the folder exists, and BadRequest if rows do not fit their track.
    """
    path = path_of(home, name)
    if path.exists():
        raise Conflict(f"{path} already exists: choose another name, or move it away")
    wide = b""
    if rows is None and track not in TRACKS:
        raise BadRequest(f"the track {track} has no built-in rows: give your own with --data FILE")
    if rows is None:
        shipped = track_of(track)
        written = _lines(shipped.rows(seed, count))
        wide = _lines(shipped.wide_rows(seed, count))
        contract = shipped.contract
    else:
        written, contract = _own(rows, track)
    plan = PLAN.format(name=name, track=track, model=model, public=public, seed=seed, examples=examples)
    files = {"rows.txt": written, "contract.toml": contract.encode()}
    if wide:
        plan += WIDE
        files["rows_b.txt"] = wide
    private_directory(home / SPECIALISTS)
    path.mkdir()
    for file, data in {**files, PLAN_FILE: plan.encode()}.items():
        durable.replace(path / file, data)
    return open_specialist(home, name)


def _lines(rows: Iterable[str]) -> bytes:
    """Each distinct row once, one per line."""
    return "".join(f"{row}\n" for row in dict.fromkeys(rows)).encode()


def _own(path: Path, track: str) -> tuple[bytes, str]:
    """The rows of a file, or of all `*.txt` files in a folder, and a contract for them."""
    files = sorted(path.glob("*.txt")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise BadRequest(f"{path} has no rows: --data takes a file of rows or a folder of .txt files")
    rows = list[Row]()
    for file in files:
        found, report = read_rows(file, grammar_of(track), ascii_only=False)
        report.refuse()
        rows += found
    data = b"".join(encoding.without_bom(file.read_bytes()).rstrip(b"\n") + b"\n" for file in files)
    if track in TRACKS:
        return data, track_of(track).contract
    parts = split(rows, Shares(), 0)
    parts.refuse_empty()
    short = (row for row in parts.parts["test"] if max(len(row.prompt), len(row.answer)) <= MAX_TEXT)
    asked = list({row.prompt: row for row in short}.values())[:MOST_PROBES]
    if not asked:
        raise BadRequest(
            f"{path}: every row that could be a probe has more than {MAX_TEXT} characters: add shorter rows"
        )
    return data, contract_of(track, [(row.prompt, row.answer) for row in asked])
