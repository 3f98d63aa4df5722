"""The stages of a specialist, the kinds of runs, and the gate that each stage must pass."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ssmprov import encoding
from ssmprov.errors import BadRequest, nearest

Stage = Literal["stage_a", "stage_b", "sft", "dpo", "grpo", "ppo"]
STAGES: tuple[Stage, ...] = get_args(Stage)
BY_PREFERENCE: frozenset[Stage] = frozenset({"dpo", "grpo", "ppo"})
"""Stages whose objective is not a loss on given answers. Their own trend must improve, too."""

Kind = Literal["prime", "tune", "train"]

METRICS = {
    "valid_rate": "share of samples that the task's own parser accepts",
    "prefix_integrity": "share of samples that begin with what the task asks for",
    "eos_clean_stop": "share of samples that ended by themselves, with only blanks after the intended end",
    "adherence": "mean share of the tags and expectations that the output fulfils",
    "ood_pass_rate": "share of out-of-distribution probes whose expectations are all met",
    "objective_trend": "how much the stage's own objective improved, from its first tenth to its last",
}
"""Every metric that is computed."""

Gate = Mapping[str, float]

_SFT = {"valid_rate": 0.99, "prefix_integrity": 0.995, "eos_clean_stop": 0.99, "adherence": 0.93}
GATES: Mapping[Stage, Gate] = {
    "stage_a": {"valid_rate": 0.98, "prefix_integrity": 0.99, "eos_clean_stop": 0.98, "adherence": 0.85},
    "stage_b": {"valid_rate": 0.985, "adherence": 0.90, "ood_pass_rate": 0.70},
    "sft": _SFT,
    **{stage: _SFT | {"objective_trend": 0.0} for stage in STAGES if stage in BY_PREFERENCE},
}
"""The minimum of each metric. A trend must be more than 0."""


@dataclass(frozen=True, slots=True)
class Check:
    """One metric compared with its gate. `value` is None if the metric could not be measured."""

    metric: str
    value: float | None
    least: float

    @property
    def passed(self) -> bool:
        if self.value is None:
            return False
        return self.value > self.least if self.metric == "objective_trend" else self.value >= self.least

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:.4g}"
        sign = ">" if self.metric == "objective_trend" else ">="
        return f"{self.metric} {found} ({'passes' if self.passed else 'fails'}: {sign} {self.least:g})"


def judge(stage: Stage, metrics: Mapping[str, float | None], gates: Mapping[Stage, Gate] = GATES) -> list[Check]:
    """Every check of a stage's gate. A check whose metric is missing fails."""
    return [Check(metric, metrics.get(metric), least) for metric, least in gates[stage].items()]


def read_gates(path: Path) -> Mapping[Stage, Gate]:
    """The gates of a TOML file, with one table per stage. A stage without a table keeps its default gate.

    Raises BadRequest if a stage or a metric does not exist, or if a value is not a number from 0 to 1.
    """
    try:
        content = tomllib.loads(encoding.read(path))
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{path} is not valid TOML: {error}") from None
    found = dict(GATES)
    for name, table in content.items():
        if name not in STAGES:
            raise BadRequest(f"{path}: {name!r} is not a stage{nearest(name, STAGES)}")
        if not isinstance(table, dict) or not table:
            raise BadRequest(f"{path}: [{name}] has no gates: write METRIC = MINIMUM in it")
        for metric, least in table.items():
            if metric not in METRICS:
                raise BadRequest(f"{path}: there is no metric {metric!r}{nearest(metric, METRICS)}")
            if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
                raise BadRequest(f"{path}: {metric} of {name} must be a number from 0 to 1, not {least!r}")
        found[stage_of(name)] = {metric: float(least) for metric, least in table.items()}
    return found


def stage_of(name: str) -> Stage:
    """The stage with this name. Raises BadRequest if there is none."""
    for stage in STAGES:
        if stage == name:
            return stage
    raise BadRequest(f"{name!r} is not a stage{nearest(name, STAGES)}")
