"""A specialist's folder: `specialists/NAME/` in the working directory, with its plan, ledger, matrix and runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from specialists.contract import Contract, read_contract
from specialists.data import Data, load_data
from specialists.ledger import NAME, Ledger
from specialists.matrix import read_matrix
from specialists.plan import FILE as PLAN_FILE
from specialists.plan import Plan, read_plan
from specialists.promotion import standing_of
from specialists.stages import GATES, Gate, Stage, read_gates
from specialists.tracks import track_of
from ssmprov import durable
from ssmprov.configuration import private_directory
from ssmprov.errors import BadRequest, Conflict, NotFound

FOLDER = "specialists"
VIEW = "pipeline.json"
DATA = "data.json"

PLAN = """\
schema = "ssmprov.specialist.v1"
name = "{name}"
track = "{track}"
model = "{model}"          # the model that is primed, tuned or started from
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


@dataclass(slots=True)
class Specialist:
    """A folder with its plan and contract read and checked."""

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
        """Where the contexts of its runs are named."""
        return f"{FOLDER}/{self.plan.name}"

    def data(self, stage: Stage) -> Data:
        """The rows of a stage, checked; what was found is left in `data.json`."""
        found = load_data(self.plan, self.path, self.contract, self.plan.stage(stage).rows)
        durable.replace(self.path / DATA, msgspec.json.format(msgspec.json.encode(found.summary), indent=1) + b"\n")
        return found

    def materialise(self) -> None:
        """Write the view of plan, ledger and matrix that other programs read."""
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
    """Raises BadRequest for what cannot be a specialist's name."""
    if not NAME.match(name):
        raise BadRequest(f"{name!r} is no name of a specialist: small letters, digits, - and _, 48 at most")
    return home / FOLDER / name


def open_specialist(home: Path, name: str) -> Specialist:
    """Raises NotFound, and BadRequest for a plan, a contract or a gate file that cannot be."""
    path = path_of(home, name)
    if not path.is_dir():
        known = sorted(folder.name for folder in (home / FOLDER).glob("*") if (folder / PLAN_FILE).is_file())
        told = f": there are {', '.join(known)}" if known else ": `ssmprov specialist init` makes one"
        raise NotFound(f"there is no specialist {name!r}{told}")
    plan = read_plan(path)
    if plan.name != name:
        raise BadRequest(f"{path / PLAN_FILE} is the plan of {plan.name!r}, and its folder is called {name!r}")
    contract_path = path / plan.eval.contract
    if not contract_path.is_file():
        raise BadRequest(f"{contract_path} is not there: the plan names it as its contract")
    contract, digest = read_contract(contract_path)
    if contract.track != plan.track:
        raise BadRequest(f"{contract_path} is a contract of {contract.track}, and the plan is of {plan.track}")
    gates = read_gates(path / plan.eval.gates) if plan.eval.gates else GATES
    return Specialist(path, plan, contract, digest, gates)


def init(
    home: Path, name: str, track: str, model: str, public: str, *, count: int, seed: int, examples: int
) -> Specialist:
    """A new folder with a plan, composed rows and the track's contract. Raises Conflict where it is there."""
    path = path_of(home, name)
    if path.exists():
        raise Conflict(f"{path} is there already: choose another name, or move it away")
    shipped = track_of(track)
    private_directory(home / FOLDER)
    path.mkdir()
    rows = "".join(f"{row}\n" for row in dict.fromkeys(shipped.rows(seed, count)))
    plan = PLAN.format(name=name, track=track, model=model, public=public, seed=seed, examples=examples)
    for file, text in (("rows.txt", rows), ("contract.toml", shipped.contract), (PLAN_FILE, plan)):
        durable.replace(path / file, text.encode())
    return open_specialist(home, name)
