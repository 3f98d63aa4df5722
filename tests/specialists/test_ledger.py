"""The ledger says what happened: whatever is killed, cut or started twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from specialists.ledger import Event, Ledger, Run, exclusive, now
from ssmprov.errors import Conflict, Corrupt, NotFound

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path)


def begin(ledger: Ledger, stage: str = "stage_a") -> Run:
    return ledger.begin(kind="train", stage=stage, seed=3)


def complete(ledger: Ledger, run: Run) -> Run:
    run.status, run.ended = "completed", now()
    ledger.append(run)
    return run


def test_the_last_record_of_a_run_counts(ledger: Ledger) -> None:
    run = begin(ledger)
    with ledger.alive(run.id):
        run.tokens = 7
        ledger.append(run)
        assert [(one.id, one.tokens, one.status) for one in ledger.runs()] == [(run.id, 7, "running")]
    complete(ledger, run)
    assert ledger.run(run.id).status == "completed"
    assert len(ledger.records()) == 3


def test_passes_of_a_stage_are_counted_and_found(ledger: Ledger) -> None:
    runs = [complete(ledger, begin(ledger, stage)) for stage in ("stage_a", "stage_a", "sft")]
    assert [run.label for run in runs] == ["stage_a_1", "stage_a_2", "sft_1"]
    assert len({run.id for run in runs}) == 3
    assert ledger.latest().id == runs[2].id
    assert ledger.latest("stage_a").id == runs[1].id
    assert ledger.latest("stage_a", 1).id == runs[0].id
    for asked in [("stage_b", None), ("stage_a", 3)]:
        with pytest.raises(NotFound, match="no run of stage_"):
            ledger.latest(*asked)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="there is no run"):
        ledger.run("other")


def test_a_run_whose_process_was_killed_has_failed(ledger: Ledger) -> None:
    script = f"""
import sys
from pathlib import Path
from specialists.ledger import Ledger
ledger = Ledger(Path({str(ledger.folder)!r}))
run = ledger.begin(kind="train", stage="sft")
with ledger.alive(run.id):
    print(run.id, flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT)},
    )
    with child:
        assert child.stdout is not None
        run_id = child.stdout.readline().strip()
        assert ledger.bury() == []  # it lives
        with pytest.raises(Conflict, match="in progress in another process"), ledger.alive(run_id):
            pass
        child.kill()
    other = begin(ledger, "sft")
    dead = ledger.run(run_id)
    assert (dead.status, dead.why) == ("failed", "its process ended before the run was complete")
    assert other.label == "sft_1", "a run that failed is no pass"


@pytest.mark.parametrize("kept", [1, 30])
def test_a_torn_line_costs_no_other(ledger: Ledger, kept: int) -> None:
    first, second = complete(ledger, begin(ledger)), complete(ledger, begin(ledger))
    whole = ledger.path.read_bytes()
    lines = whole.splitlines(keepends=True)
    ledger.path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    assert {run.id: run.status for run in ledger.runs()} == {first.id: "completed", second.id: "running"}
    ledger.append(Event(event="promoted", run=first.id, at=now()))
    assert len(ledger.records()) == 4
    assert ledger.events()[0].run == first.id


def test_a_line_that_is_no_record_is_told_and_left(ledger: Ledger) -> None:
    complete(ledger, begin(ledger))
    before = ledger.path.read_bytes()
    ledger.path.write_bytes(before + b'{"no": "record"}\n')
    with pytest.raises(Corrupt, match="line 3, is not a valid record"):
        ledger.records()
    assert ledger.path.read_bytes().startswith(before)


def test_two_runs_of_one_specialist_exclude_each_other(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        with pytest.raises(Conflict, match="another run of this specialist"), exclusive(tmp_path):
            pass
        (tmp_path / "other").mkdir()
        with exclusive(tmp_path / "other"):
            pass
    with exclusive(tmp_path):
        pass
