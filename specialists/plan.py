"""`plan.toml`: what a specialist should become. You edit it; the program never changes it after `init`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from specialists.grammars import grammar_of
from specialists.ledger import NAME
from specialists.splits import Shares
from specialists.stages import Stage, stage_of
from ssmprov import encoding
from ssmprov.errors import BadRequest
from ssmprov.names import check_model, check_name

SCHEMA = "ssmprov.specialist.v1"
FILE = "plan.toml"
HOTTEST = 0.7
"""A temperature above this is recorded as a risky choice."""

Whole = Annotated[int, Meta(ge=1, le=1 << 31)]
Rate = Annotated[float, Meta(gt=0, le=10)]
Packing = Literal["rows", "stream"]


class DataTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[data]`: one file of rows to split, or one file for each part. Paths are relative to the plan.

    The ledger records `ascii = false` as a risk.
    """

    rows: str = ""
    train: str = ""
    validation: str = ""
    test: str = ""
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1)
    split_seed: int = 0
    ascii: bool = True

    @property
    def of_parts(self) -> bool:
        return bool(self.train or self.validation or self.test)


class EvalTable(msgspec.Struct, forbid_unknown_fields=True):
    """`[eval]`: the contract, and optionally a file of gates and a limit for the tokens of an answer."""

    contract: str = "contract.toml"
    gates: str = ""
    max_tokens: Whole | None = None


class StageTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[stages.NAME]`: `rows` replaces the rows of `[data]` for this stage. Priming reads `examples` of them.

    The other keys say how to tune or train. Kind and stage determine the defaults (`specialists.settings`). The ledger
    records `packing = "stream"` (rows follow each other in one state) as a risk.
    """

    rows: str = ""
    examples: Whole | None = None
    pairs: str = ""
    steps: Whole | None = None
    rate: Rate | None = None
    batch_tokens: Whole | None = None
    longest: Whole | None = None
    check_every: Whole | None = None
    keep_every: Whole | None = None
    patience: Annotated[int, Meta(ge=0)] | None = None
    packing: Packing | None = None
    beta: Annotated[float, Meta(ge=0, le=100)] | None = None
    clip: Annotated[float, Meta(gt=0, lt=1)] | None = None
    group: Annotated[int, Meta(ge=2, le=256)] | None = None
    prompts: Annotated[int, Meta(ge=1, le=1024)] | None = None
    reuse: Annotated[int, Meta(ge=1, le=64)] | None = None
    temperature: Annotated[float, Meta(gt=0, le=2)] | None = None
    reply_tokens: Whole | None = None
    save_every_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None


class Plan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A whole plan. `public` is the name that filters use. `model` is the model to prime or to start from.

    `roles` are the roles of question and answer in a transcript. They must be those of the filter that will use it.
    """

    name: str
    track: str
    model: str
    public: str
    schema: str = SCHEMA
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 1
    roles: tuple[str, str] = ("USER", "INTERFACE")
    data: DataTable = msgspec.field(default_factory=DataTable)
    eval: EvalTable = msgspec.field(default_factory=EvalTable)
    stages: dict[str, StageTable] = {}

    def stage(self, stage: Stage) -> StageTable:
        return self.stages.get(stage, StageTable())

    @property
    def shares(self) -> Shares:
        return Shares(*self.data.shares)


def read_plan(folder: Path) -> Plan:
    """The plan of a specialist's folder. Raises BadRequest, which says what is wrong."""
    path = folder / FILE
    try:
        content = tomllib.loads(encoding.read(path))
        plan = msgspec.convert(content, Plan)
    except FileNotFoundError:
        raise BadRequest(f"{path} does not exist: `ssmprov specialist init` writes one") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadRequest(f"{path} is not valid TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise BadRequest(f"{path}: {error}") from None
    try:
        _check(plan)
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from None
    return plan


def _check(plan: Plan) -> None:
    if plan.schema != SCHEMA:
        raise BadRequest(f"its schema is {plan.schema!r}, but this version reads {SCHEMA!r}")
    if not NAME.match(plan.name):
        raise BadRequest(f"{plan.name!r} is not a valid name for a specialist: use lowercase letters, digits, - and _")
    grammar_of(plan.track)
    check_model(plan.model)
    check_name(plan.public)
    for stage in plan.stages:
        stage_of(stage)
    _ = plan.shares
    data = plan.data
    if data.rows and data.of_parts:
        raise BadRequest("[data] must name either `rows`, which are split, or `train`, `validation` and `test`")
    if data.of_parts and not (data.train and data.validation and data.test):
        raise BadRequest("[data] names files for only some parts: give all of `train`, `validation` and `test`")


def risks(plan: Plan, temperature: float) -> dict[str, Any]:
    """The risky choices in a plan, and in the temperature of its contract, in the form that the ledger records."""
    found: dict[str, Any] = {}
    if not plan.data.ascii:
        found["ascii"] = False
    if plan.eval.max_tokens is not None:
        found["max_tokens"] = plan.eval.max_tokens
    if temperature > HOTTEST:
        found["temperature"] = temperature
    return found
