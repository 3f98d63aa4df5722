"""With what no run with gradients begins, and what ends one: a clear word, a true ledger, nothing promoted."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from cluster import TINY, Cluster
from specialist_runs import good, made, refused

from models import rwkv7
from specialists import parity
from specialists.cli import specialist
from specialists.ledger import Ledger
from ssmprov.errors import NoSpace, SsmprovError
from ssmprov.statefile import read_state, write_state
from training.opening import open_policy

pytestmark = pytest.mark.usefixtures("at_home")


def test_other_weights_than_those_that_are_served_are_refused(house: Cluster) -> None:
    folder, path = made(house, "another"), house.home / "tiny.pth"
    served = path.read_bytes()
    rwkv7.save(rwkv7.random_tensors(TINY, 9), path)
    try:
        assert "but the workers of tiny serve" in refused("train", "another")
    finally:
        path.write_bytes(served)
    assert [run.status for run in Ledger(folder).runs()] == ["failed"]


def test_where_training_and_serving_disagree_nothing_is_trained(house: Cluster) -> None:
    """A run that says it made a state which it did not: what is served for it is not where the policy begins."""
    folder = made(house, "apart", stages=("stage_a", "sft"))
    run = good("train", "apart", "--skip-parity", "--steps", "20", "--rate", "0.01")
    other = good("train", "apart", "--skip-parity", "--steps", "2")
    state = "state.safetensors"
    (folder / "runs" / run["id"] / state).replace(folder / "runs" / other["id"] / state)
    said = refused("train", "apart", "--stage", "sft", "--from", other["id"])
    assert "the parity gate failed, so nothing was trained: P5" in said
    found = json.loads((folder / "parity.json").read_text())
    assert [check["status"] for check in found["checks"] if check["id"] != "P5"] == ["PASS"] * 6
    assert Ledger(folder).runs()[-1].status == "failed"


def test_what_cannot_be_tuned_is_told_and_leaves_no_run(house: Cluster) -> None:
    folder = made(house, "talker", model="talk")
    assert "scripted, which computes no gradients" in refused("tune", "talker")
    assert "no worker serves the model 'tony'" in _with_plan(folder, ('model = "talk"', 'model = "tony"'))
    assert Ledger(folder).runs() == []


def _with_plan(folder: Path, change: tuple[str, str]) -> str:
    plan = (folder / "plan.toml").read_text()
    (folder / "plan.toml").write_text(plan.replace(*change))
    said = refused("tune", folder.name)
    (folder / "plan.toml").write_text(plan)
    return said


def test_rows_and_settings_that_cannot_be_learnt_from_fail_with_a_word(house: Cluster) -> None:
    folder = made(house, "odd")
    assert "none of" in _with_plan(folder, ("longest = 128", "longest = 8"))
    assert "lower `longest`, or raise `batch_tokens`" in _with_plan(folder, ("longest = 128", "longest = 4096"))
    assert "`$.stages[...]`" in _with_plan(folder, ("examples = 2", "exmples = 2"))
    assert "there is no run 'gone'" in refused("tune", "odd", "--from", "gone")
    primed = good("prime", "odd")
    assert "continue from a completed run of `tune` or `train`" in refused("tune", "odd", "--from", primed["id"])
    assert "try a smaller learning rate" in refused("train", "odd", "--rate", "10", "--steps", "400")
    states = {run.status for run in Ledger(folder).runs() if run.kind != "prime"}
    assert states == {"failed"}
    assert all(run.why for run in Ledger(folder).runs() if run.status == "failed")


def test_more_weights_than_a_context_brings_are_refused_before_anything_is_trained(
    house: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(house, "large")
    monkeypatch.setattr("specialists.learning.MAX_BYTES", 100_000)
    assert "bytes of weights, but a context can carry at most 100000" in refused("train", "large")
    good("tune", "large", "--steps", "2", "--skip-parity")


def test_a_full_disk_ends_a_run_and_touches_nothing(house: Cluster) -> None:
    """Files may have no more bytes than the ledger needs."""
    folder = made(house, "full")
    good("prime", "full")
    good("promote", "full", "--force")
    with house.client() as client:
        before = client.show("full", model="tiny").row.object
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    try:
        with pytest.raises(SsmprovError) as error:
            CliRunner().invoke(specialist, ["train", "full", "--skip-parity"], catch_exceptions=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    assert isinstance(error.value, NoSpace)
    assert "cannot be written (File too large)" in str(error.value)
    run = Ledger(folder).runs()[-1]
    assert (run.status, run.made) == ("failed", "")
    with house.client() as client:
        assert client.show("full", model="tiny").row.object == before


def test_who_asks_for_the_end_within_the_parity_gate_gets_it_there(
    house: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As asked by a first Ctrl-C, which comes too fast to be timed here."""

    @contextmanager
    def asked() -> Iterator[Callable[[], bool]]:
        yield lambda: True

    folder = made(house, "hasty")
    monkeypatch.setattr("training.session.stopping", asked)
    assert refused("train", "hasty") == "stopped during the parity gate: nothing was trained"
    [run] = Ledger(folder).runs()
    assert (run.status, run.why, run.steps) == ("failed", "stopped during the parity gate: nothing was trained", 0)
    with house.client() as client:
        assert client.ls("specialists/hasty/", model="tiny").rows == []


def test_a_run_is_gone_on_with_as_what_it_was_begun_as_or_not_at_all(house: Cluster) -> None:
    folder = made(house, "changed")
    assert "smaller learning rate" in refused("train", "changed", "--rate", "10", "--steps", "400", "--skip-parity")
    plan, rows = (folder / "plan.toml").read_text(), (folder / "rows.txt").read_text()

    def gone_on_with(file: str, text: str) -> str:
        before = (folder / file).read_text()
        (folder / file).write_text(text)
        said = refused("train", "changed", "--resume", "--skip-parity")
        (folder / file).write_text(before)
        return said

    others = "its rows, their split, the pairs, roles or scorer have changed since it started"
    assert others in gone_on_with("plan.toml", plan.replace('"INTERFACE"', '"ANSWER"'))
    assert others in gone_on_with("plan.toml", plan.replace("0.8, 0.1, 0.1", "0.7, 0.2, 0.1"))
    assert others in gone_on_with("rows.txt", rows.replace("\tyes", "\tno"))
    assert "used the model tiny" in gone_on_with("plan.toml", plan.replace('model = "tiny"', 'model = "asm"'))
    assert "smaller learning rate" in refused("train", "changed", "--resume"), "all is as it was"


def test_a_run_begins_with_what_its_own_model_made(house: Cluster) -> None:
    folder = made(house, "moved", stages=("stage_a", "sft"))
    run = good("tune", "moved", "--skip-parity")
    path = folder / "runs" / run["id"] / "state.safetensors"
    state = read_state(path)
    write_state(path, state.arrays, msgspec.structs.replace(state.origin, fingerprint="0" * 64))
    assert f"the run {run['id']} was made with the model 000000000000" in refused("tune", "moved", "--stage", "sft")
    (folder / "plan.toml").write_text((folder / "plan.toml").read_text().replace('model = "tiny"', 'model = "asm"'))
    assert "used the model tiny, but the plan names asm" in refused("tune", "moved", "--from", run["id"])
    other = good("tune", "moved", "--stage", "sft", "--skip-parity", "--steps", "1")
    assert other["parent"] == "", "what another model made is nothing to begin with"
    path.unlink()
    assert "has no state.safetensors in its folder" in refused("tune", "moved", "--from", run["id"])
    assert "the rate must be a number" in refused("tune", "moved", "--rate", "nan")


def test_names_that_a_killed_parity_gate_has_left_are_taken_away(house: Cluster) -> None:
    made(house, "scratch")
    with house.client() as client:
        for name in ("start", "0"):
            client.turn("a", model="tiny", save=f"specialists/scratch/parity/gone/{name}", create=True, max_tokens=0)
        good("tune", "scratch", "--steps", "1", "--skip-parity")
        assert client.ls("specialists/scratch/parity/", model="tiny").rows == []


def test_the_reference_spells_text_past_tokens_that_are_none(house: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "CANDIDATES", 1)
    spelt = parity._greedy(open_policy("rwkv7", house.home / "tiny.pth", "tune"), "one two three")
    assert len(list(spelt)) == parity.TOKENS
