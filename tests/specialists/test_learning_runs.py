"""Runs with gradients, through a real broker: tuned, trained, killed, gone on with, refused."""

from __future__ import annotations

import json
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from cluster import TINY, Cluster, asm_toml, rwkv_toml, scripted_toml

from clients.blocking import Client
from models import rwkv7
from specialists import parity, report
from specialists.cli import specialist
from specialists.folder import open_specialist
from specialists.ledger import Ledger
from ssmprov.errors import NoSpace, SsmprovError
from ssmprov.statefile import read_state, write_state
from training.fit import CHECKPOINT
from training.policy import open_policy

WORDS = ("ash", "bee", "cup", "dog", "elm", "fox", "gum", "hat", "ink", "jar", "key", "log", "map", "net", "oak", "pen",
         "rod", "sun", "tin", "urn", "van", "wax", "yew", "zoo")  # fmt: skip
ROWS = "".join(f"{a} {b}\tyes\n" for a in WORDS for b in WORDS[:3])
SMALL = """
[stages.{stage}]
examples = 2
steps = 6
batch_tokens = 640
longest = 128
check_every = 2
save_every_s = 0
reply_tokens = 24
group = 2
prompts = 2
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("learning")
    cluster = Cluster(home, rwkv_toml(home) + asm_toml(home) + scripted_toml(home)).up()
    yield cluster
    cluster.close()


@pytest.fixture(autouse=True)
def _at_home(house: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most commands run in this process: each new one would load torch for two seconds."""
    monkeypatch.setenv("SSMPROV_HOME", str(house.home))


def good(*words: str) -> Any:
    done = CliRunner().invoke(specialist, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*words: str) -> str:
    """What is told of the error that a command ends with."""
    with pytest.raises(SsmprovError) as error:
        CliRunner().invoke(specialist, words, catch_exceptions=False)
    return str(error.value)


def begun(house: Cluster, *words: str) -> subprocess.Popen[bytes]:
    """A command as a process of its own."""
    command = [str(Path(sys.executable).with_name("ssmprov")), "specialist", *words]
    return subprocess.Popen(command, env=house.environment, cwd=house.home, stderr=subprocess.PIPE)


def learning(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for the first checkpoint of a run."""
    end = time.monotonic() + 60
    while not list(folder.glob(f"runs/*/{CHECKPOINT}")):
        assert time.monotonic() < end
        assert process.poll() is None, "it ended before its first checkpoint"
        select.select([], [], [], 0.01)


def made(house: Cluster, name: str, *, model: str = "tiny", stages: tuple[str, ...] = ("stage_a",)) -> Path:
    """A specialist whose rows all have one answer."""
    rows = house.home / "yes.txt"
    rows.write_text(ROWS)
    words = ["init", name, "--track", "pairs", "--model", model, "--data", str(rows)]
    assert CliRunner().invoke(specialist, words, catch_exceptions=False).exit_code == 0
    folder = house.home / "specialists" / name
    plan = (folder / "plan.toml").read_text()
    at = plan.index("[stages.")
    (folder / "plan.toml").write_text(plan[:at] + "".join(SMALL.format(stage=stage) for stage in stages))
    return folder


def test_trained_weights_are_evaluated_promoted_and_answer_under_the_public_name(house: Cluster) -> None:
    folder = made(house, "yes", stages=("stage_a", "sft"))
    run = good("train", "yes", "--steps", "60", "--rate", "0.01")
    assert (run["kind"], run["status"], run["steps"]) == ("train", "completed", 60)
    assert run["loss"]["final"] < 0.05 * run["loss"]["first"]
    assert run["options"] == {"reply_tokens": 24}
    entry = good("eval", "yes")
    assert {check["metric"]: check["passed"] for check in entry["gate"]} == {
        "valid_rate": True, "prefix_integrity": True, "eos_clean_stop": True, "adherence": True,
    }  # fmt: skip
    assert entry["max_tokens"] == 24, "the budget is the one that was measured or chosen with the rows"
    good("promote", "yes")
    with house.client() as client:
        turn = "(Turn 1) [USER]: sun bee\n\n~~~(end)~~~\n\n(Turn 2) [INTERFACE]:"
        values = {"temp": 0.0, "pen_rep": 1.0, "pen_freq": 0.0, "pen_pres": 0.0}
        assert client.turn(turn, model="tiny", context="yes", values=values).text == " yes\n\n~~~(end)~~~\n\n"
        assert client.turn(turn, model="tiny", values=values, max_tokens=4).text != " yes"

    further = good("tune", "yes", "--stage", "sft", "--steps", "2", "--skip-parity")
    assert further["parent"] == run["id"], "a later stage goes on from the stage before"
    assert (folder / "runs" / further["id"] / "state.safetensors").stat().st_size > 10_000, "with the trained weights"
    page = CliRunner().invoke(specialist, ["report", "yes"], catch_exceptions=False)
    html = Path(page.stdout.strip()).read_text()
    assert html.count('class="curve"') == 2
    assert html.index(run["id"]) < html.index(further["id"])


def test_a_tuned_state_is_a_context_like_any_other(house: Cluster) -> None:
    made(house, "tuned")
    run = good("tune", "tuned", "--rate", "0.5", "--steps", "30", "--skip-parity")
    assert run["loss"]["trend"] > 0
    with house.client() as client:
        assert client.show(f"specialists/tuned/{run['id']}", model="tiny").row.object == run["made"]
        client.fork(f"#{run['made']}", ["tuned/copy"], model="tiny")
    again = good("tune", "tuned", "--rate", "0.5", "--steps", "30", "--from", "none", "--skip-parity")
    assert again["made"] == run["made"], "a seed makes a run repeatable"
    other = good("tune", "tuned", "--rate", "0.5", "--seed", "7", "--skip-parity")
    assert other["made"] != run["made"]


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_an_addressed_state_model_learns_too(house: Cluster, kind: str) -> None:
    made(house, f"asm-{kind}", model="asm")
    held = ["--skip-parity"] if kind == "tune" else []  # the state of a model that knows nothing learns little by heart
    run = good(kind, f"asm-{kind}", "--rate", "0.01", *held)
    assert run["loss"]["trend"] > 0
    assert good("eval", f"asm-{kind}")["object"] == run["made"]


@pytest.mark.parametrize("stage", ["dpo", "grpo", "ppo"])
def test_stages_by_preference_run_through_and_tell_their_own_trend(house: Cluster, stage: str) -> None:
    made(house, f"by-{stage}", stages=(stage,))
    run = good("train", f"by-{stage}", "--stage", stage, "--rate", "0.003", "--skip-parity")
    assert run["options"] == {"reply_tokens": 24, "skip_parity": True}
    entry = good("eval", f"by-{stage}")
    assert entry["metrics"]["objective_trend"] == run["loss"]["trend"]
    if stage == "dpo":
        assert run["loss"]["first"] == pytest.approx(0.6931, abs=1e-3), "log 2: at first the policy is its reference"
        assert run["loss"]["trend"] > 0


def test_a_run_that_is_killed_is_marked_and_goes_on_to_the_same_end(house: Cluster) -> None:
    folder = made(house, "killed")
    whole = good("train", "killed", "--steps", "40")
    with begun(house, "train", "killed", "--steps", "40") as process:
        learning(process, folder)
        process.send_signal(signal.SIGKILL)
    dead = good("runs", "killed")[-1]
    assert (dead["status"], dead["why"]) == ("failed", "its process ended before it did")
    asked = CliRunner().invoke(specialist, ["train", "killed", "--resume", "--steps", "9"])
    assert asked.exit_code == 2
    assert "no other settings" in asked.output
    run = good("train", "killed", "--resume")
    assert (run["id"], run["status"]) == (dead["id"], "completed")
    assert run["made"] == whole["made"], "as if it had never stopped"
    assert "no train run" in refused("train", "killed", "--resume")


def test_what_a_run_kept_on_its_way_is_evaluated_and_promoted_by_its_step(house: Cluster) -> None:
    folder = made(house, "steps")
    plan = (folder / "plan.toml").read_text().replace("check_every = 2", "check_every = 2\nkeep_every = 2")
    (folder / "plan.toml").write_text(plan)
    run = good("train", "steps", "--skip-parity")
    assert list(run["kept"]) == ["2", "4"]
    assert len({*run["kept"].values(), run["made"]}) == 3
    assert "there is 2, 4, 6" in refused("eval", "steps", "--step", "3")
    assert good("eval", "steps", "--step", "4")["object"] == run["kept"]["4"]
    assert "has not been evaluated" in refused("promote", "steps", "--step", "2")
    good("promote", "steps", "--step", "4", "--force")
    with house.client() as client:
        assert client.show("steps", model="tiny").row.object == run["kept"]["4"]
    assert "At step 4" in report.page(open_specialist(house.home, "steps"))
    listed = CliRunner().invoke(specialist, ["runs", "steps"], catch_exceptions=False)
    assert "promoted, step 4" in listed.stdout


def test_other_weights_than_those_that_are_served_are_refused(house: Cluster) -> None:
    folder, path = made(house, "another"), house.home / "tiny.pth"
    served = path.read_bytes()
    rwkv7.save(rwkv7.random_tensors(TINY, 9), path)
    try:
        assert "and tiny is served with" in refused("train", "another")
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
    assert "the parity gate fails, and nothing was trained: P5" in said
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
    assert "a batch holds the longest row" in _with_plan(folder, ("longest = 128", "longest = 4096"))
    assert "`$.stages[...]`" in _with_plan(folder, ("examples = 2", "exmples = 2"))
    assert "there is no run 'gone'" in refused("tune", "odd", "--from", "gone")
    primed = good("prime", "odd")
    assert "only a completed run of `tune` or `train`" in refused("tune", "odd", "--from", primed["id"])
    assert "try a smaller learning rate" in refused("train", "odd", "--rate", "10", "--steps", "400")
    states = {run.status for run in Ledger(folder).runs() if run.kind != "prime"}
    assert states == {"failed"}
    assert all(run.why for run in Ledger(folder).runs() if run.status == "failed")


def test_more_weights_than_a_context_brings_are_refused_before_anything_is_trained(
    house: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(house, "large")
    monkeypatch.setattr("specialists.learning.MAX_BYTES", 100_000)
    assert "bytes of weights, and a context brings 100000 at most" in refused("train", "large")
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
    assert refused("train", "hasty") == "stopped in the parity gate: nothing was trained"
    [run] = Ledger(folder).runs()
    assert (run.status, run.why, run.steps) == ("failed", "stopped in the parity gate: nothing was trained", 0)
    with house.client() as client:
        assert client.ls("specialists/hasty/", model="tiny").rows == []


def test_one_specialist_has_one_run_at_a_time(house: Cluster) -> None:
    folder = made(house, "busy")
    with begun(house, "train", "busy", "--steps", "100000") as process:
        try:
            learning(process, folder)
            assert "another run of this specialist is under way" in refused("tune", "busy")
            assert good("runs", "busy")[-1]["status"] == "running"
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()
    (run,) = good("runs", "busy")
    assert run["status"] == "failed"
    assert "--resume goes on with it" in run["why"]
    assert run["steps"] > 0


def test_a_run_that_is_killed_before_it_could_say_what_it_made_goes_on_to_it(house: Cluster) -> None:
    """The ledger is long, and files may have no more bytes than its next record needs."""
    folder = made(house, "unsaid")
    ledger = Ledger(folder)
    ledger.path.write_bytes(b" " * (8 << 20) + b"\n")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, ((8 << 20) + 1500, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            CliRunner().invoke(specialist, ["train", "unsaid", "--skip-parity"], catch_exceptions=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    dead = good("runs", "unsaid")[-1]
    assert (dead["status"], dead["made"]) == ("failed", "")
    with house.client() as client:
        there = client.show(f"specialists/unsaid/{dead['id']}", model="tiny").row.object
    assert good("train", "unsaid", "--resume")["made"] == there
    assert not list(folder.glob(f"runs/*/{CHECKPOINT}"))


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

    others = "or its rows, their split, pairs, roles or scorer are others than when it began"
    assert others in gone_on_with("plan.toml", plan.replace('"INTERFACE"', '"ANSWER"'))
    assert others in gone_on_with("plan.toml", plan.replace("0.8, 0.1, 0.1", "0.7, 0.2, 0.1"))
    assert others in gone_on_with("rows.txt", rows.replace("\tyes", "\tno"))
    assert "of the model tiny" in gone_on_with("plan.toml", plan.replace('model = "tiny"', 'model = "asm"'))
    assert "smaller learning rate" in refused("train", "changed", "--resume"), "all is as it was"


def test_a_run_begins_with_what_its_own_model_made(house: Cluster) -> None:
    folder = made(house, "moved", stages=("stage_a", "sft"))
    run = good("tune", "moved", "--skip-parity")
    path = folder / "runs" / run["id"] / "state.safetensors"
    state = read_state(path)
    write_state(path, state.arrays, msgspec.structs.replace(state.origin, fingerprint="0" * 64))
    assert f"the run {run['id']} was made with the model 000000000000" in refused("tune", "moved", "--stage", "sft")
    (folder / "plan.toml").write_text((folder / "plan.toml").read_text().replace('model = "tiny"', 'model = "asm"'))
    assert "is of the model tiny, and the plan names asm" in refused("tune", "moved", "--from", run["id"])
    other = good("tune", "moved", "--stage", "sft", "--skip-parity", "--steps", "1")
    assert other["parent"] == "", "what another model made is nothing to begin with"
    path.unlink()
    assert "has left no state.safetensors" in refused("tune", "moved", "--from", run["id"])
    assert "the rate is no number" in refused("tune", "moved", "--rate", "nan")


def test_a_run_goes_on_from_one_whose_context_was_collected(house: Cluster) -> None:
    folder = made(house, "lost", stages=("stage_a", "sft"))
    run = good("train", "lost", "--skip-parity", "--seed", "77")
    state = folder / "runs" / run["id"] / "state.safetensors"
    with house.client() as client:
        client.rm([f"specialists/lost/{run['id']}"], model="tiny")
        client.gc(model="tiny")
        for command in (["eval"], ["promote", "--force"]):
            assert f"`ssmprov ckpt import {state} NAME` brings it back" in refused(*command, "lost")
        assert good("train", "lost", "--stage", "sft", "--steps", "1")["parent"] == run["id"]
        client.import_(state, "lost/again", model="tiny")
    assert good("promote", "lost", "--force", "--stage", "stage_a")["after"] == run["made"]


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


def test_a_rollback_finds_what_stood_there_past_a_promotion_that_moved_nothing(house: Cluster) -> None:
    made(house, "back")
    one, two = (good("prime", "back", "--examples", count) for count in "12")

    def used(client: Client) -> str:  # as a live filter goes on from the name
        return client.turn("x", model="tiny", context="back", save="back", max_tokens=0).result.object

    def stands(client: Client, name: str = "back") -> str:
        return client.show(name, model="tiny").row.object

    with house.client() as client:
        for run in (one, two, two):
            good("promote", "back", "--run", run["id"], "--force")
        used(client)
        good("rollback", "back")
        assert stands(client) == one["made"]
        after = used(client)
        good("promote", "back", "--run", two["id"], "--force")
        kept = f"specialists/back/before/{two['id']}"
        assert (stands(client, kept), stands(client, f"{kept}-2")) == (one["made"], after)
        good("rollback", "back")
        assert stands(client) == after
