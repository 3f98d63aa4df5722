"""Every decoder under damaged input: it takes it or raises its documented error, in bounded time and memory.

The seeds are fixed, so that a run is the same each time; `make fuzz` goes on with others. What once failed stands in
`corpus/` and is tried again here.
"""

from __future__ import annotations

import pytest

from fuzz.engine import TAKEN, Fuzzer, kept, outcome_of, watched
from fuzz.targets import all_targets

TARGETS = all_targets()
FOUND = [(name, number) for name in TARGETS for number in range(len(kept(name)))]


@pytest.mark.parametrize("name", TARGETS)
def test_a_valid_input_is_taken(name: str) -> None:
    outcome, finding = outcome_of(TARGETS[name], TARGETS[name].seeds()[0])
    assert finding is None
    assert outcome.startswith(TAKEN)


@pytest.mark.parametrize(("name", "number"), FOUND)
def test_what_once_was_a_fault_is_none(name: str, number: int) -> None:
    with watched(lambda: 0):
        outcome, finding = outcome_of(TARGETS[name], kept(name)[number])
    assert finding is None, finding.trace
    assert outcome


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_ends_in_a_documented_error_at_worst(name: str) -> None:
    target = TARGETS[name]
    fuzzer = Fuzzer(target, seed=1)
    fuzzer.run(target.runs)
    assert [finding.what + "\n" + finding.trace for finding in fuzzer.tally.findings.values()] == []
    assert fuzzer.tally.runs == target.runs


def test_the_frames_of_a_run_reach_every_check_of_the_wire() -> None:
    fuzzer = Fuzzer(TARGETS["frames"], seed=2)
    fuzzer.run(20_000)
    said = "\n".join(fuzzer.tally.outcomes)
    for check in ("_check_sizes", "decode_args", "check_name", "the header of", "the arguments are wrong"):
        assert check in said
    assert sum(outcome.startswith("WireError in _check_sizes") for outcome in fuzzer.tally.outcomes) == 5
