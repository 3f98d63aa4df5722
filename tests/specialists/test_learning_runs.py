"""Runs with gradients, through a real broker: tuned, trained, killed, gone on with, kept and promoted."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner
from cluster import Cluster
from specialist_runs import begun, good, learning, made, refused

from clients.blocking import Client
from specialists import report
from specialists.cli import specialist
from specialists.folder import open_specialist
from specialists.ledger import Ledger
from training.checkpoint import NAME as CHECKPOINT

pytestmark = pytest.mark.usefixtures("at_home")


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
    assert (dead["status"], dead["why"]) == ("failed", "its process ended before the run was complete")
    asked = CliRunner().invoke(specialist, ["train", "killed", "--resume", "--steps", "9"])
    assert asked.exit_code == 2
    assert "original settings" in asked.output
    run = good("train", "killed", "--resume")
    assert (run["id"], run["status"]) == (dead["id"], "completed")
    assert run["made"] == whole["made"], "as if it had never stopped"
    assert "no train run" in refused("train", "killed", "--resume")


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


def test_what_a_run_kept_on_its_way_is_evaluated_and_promoted_by_its_step(house: Cluster) -> None:
    folder = made(house, "steps")
    plan = (folder / "plan.toml").read_text().replace("check_every = 2", "check_every = 2\nkeep_every = 2")
    (folder / "plan.toml").write_text(plan)
    run = good("train", "steps", "--skip-parity")
    assert list(run["kept"]) == ["2", "4"]
    assert len({*run["kept"].values(), run["made"]}) == 3
    assert "it kept 2, 4, 6" in refused("eval", "steps", "--step", "3")
    assert good("eval", "steps", "--step", "4")["object"] == run["kept"]["4"]
    assert "has not been evaluated" in refused("promote", "steps", "--step", "2")
    good("promote", "steps", "--step", "4", "--force")
    with house.client() as client:
        assert client.show("steps", model="tiny").row.object == run["kept"]["4"]
    assert "At step 4" in report.page(open_specialist(house.home, "steps"))
    listed = CliRunner().invoke(specialist, ["runs", "steps"], catch_exceptions=False)
    assert "promoted, step 4" in listed.stdout


def test_one_specialist_has_one_run_at_a_time(house: Cluster) -> None:
    folder = made(house, "busy")
    with begun(house, "train", "busy", "--steps", "100000") as process:
        try:
            learning(process, folder)
            assert "another run of this specialist is in progress" in refused("tune", "busy")
            assert good("runs", "busy")[-1]["status"] == "running"
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()
    (run,) = good("runs", "busy")
    assert run["status"] == "failed"
    assert "--resume continues it" in run["why"]
    assert run["steps"] > 0


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
