"""Gates: what has to be reached, and what a gate may ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from specialists.stages import GATES, METRICS, STAGES, judge, read_gates, stage_of
from ssmprov.errors import BadRequest

PERFECT = dict.fromkeys(METRICS, 1.0)


def test_every_stage_has_a_gate_of_known_metrics() -> None:
    assert list(GATES) == list(STAGES)
    assert {metric for gate in GATES.values() for metric in gate} <= set(METRICS)
    assert all(check.passed for stage in STAGES for check in judge(stage, PERFECT))


@pytest.mark.parametrize("stage", STAGES)
def test_each_metric_alone_can_fail_a_gate(stage: str) -> None:
    for metric, least in GATES[stage_of(stage)].items():
        for value in (None, least - 0.001):
            failed = [check for check in judge(stage_of(stage), PERFECT | {metric: value}) if not check.passed]
            assert [check.metric for check in failed] == [metric]


def test_a_trend_that_stands_still_fails() -> None:
    assert [c.metric for c in judge("dpo", PERFECT | {"objective_trend": 0.0}) if not c.passed] == ["objective_trend"]


def test_gates_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    path.write_text("[stage_a]\nvalid_rate = 0.5\n")
    gates = read_gates(path)
    assert gates["stage_a"] == {"valid_rate": 0.5}
    assert gates["sft"] == GATES["sft"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[stage_a]\nvalid_rat = 0.5", "there is no metric 'valid_rat'.*valid_rate"),
        ("[stage_c]\nvalid_rate = 0.5", "is not a stage"),
        ("[stage_a]\nvalid_rate = 2", "from 0 to 1"),
        ("[stage_a]\nvalid_rate = true", "from 0 to 1"),
        ("[stage_a]\nvalid_rate = nan", "from 0 to 1"),
        ("[stage_a]", "has no gates"),
        ("stage_a = 1", "has no gates"),
        ("[stage_a", "not valid TOML"),
    ],
)
def test_a_gate_that_cannot_be_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "gates.toml"
    path.write_text(text)
    with pytest.raises(BadRequest, match=why):
        read_gates(path)
