"""A specialist from its folder to its promoted name: through a real broker and two workers of a scripted model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run, runner
from cluster import Cluster, scripted_toml

from specialists.ledger import Event, Ledger, now
from ssmprov.transcript import FENCE

CIRCLE = '<svg><circle fill="#28c"/></svg>'
BARS = '<svg><rect height="1" fill="#28c"/><rect x="2" height="2" fill="#28c"/></svg>'
CONTRACT = """
track = "svg"
scorer = "xml"
starts = "<svg"
[[probe]]
id = "circle"
prompt = "[circle][palette:cool]"
[[probe]]
id = "bars"
prompt = "[bar-chart][bars:2][palette:cool]"
[[probe]]
id = "other"
type = "ood"
prompt = "[square]"
"""


def after(prompt: str, answer: str) -> dict[str, Any]:
    """Two examples are primed with, so that a question is turn 5 and its answer turn 6."""
    return {"after": f"{prompt}{FENCE}(Turn 6) [INTERFACE]:", "pieces": [" ", answer, "\n\n", "~~~(end)~~~\n\n"]}


SCRIPT = {
    "replies": [
        after("[circle][palette:cool]", CIRCLE),
        after("[bar-chart][bars:2][palette:cool]", BARS),
        after("commands", CIRCLE),
        after("[square]", "<svg></svg>"),
        {"after": "(Turn 4) [INTERFACE]:", "pieces": [" no drawing", FENCE]},  # with one example it is good for nothing
        {"after": "(Turn 2) [INTERFACE]:", "pieces": [" empty", FENCE]},
        {"after": "", "pieces": ["?"]},
    ]
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("specialists")
    cluster = Cluster(home, scripted_toml(home, workers=2, script=SCRIPT)).up()
    yield cluster
    cluster.close()


@pytest.fixture
def sh(house: Cluster) -> Run:
    return runner(house)


def good(sh: Run, *words: str) -> Any:
    done = sh("specialist", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(sh: Run, *words: str, code: int = 1) -> str:
    done = sh("specialist", *words)
    assert done.returncode == code, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def draw(house: Cluster, sh: Run, request: pytest.FixtureRequest) -> str:
    """A specialist of the test's own, with a contract that the script can fulfil."""
    name = f"s{abs(hash(request.node.name)) % 10**9}"
    done = sh("specialist", "init", name, "--track", "svg", "--model", "talk", "--rows", "400")
    assert done.returncode == 0, done.stderr
    (folder(house, name) / "contract.toml").write_text(CONTRACT)
    return name


def folder(house: Cluster, name: str) -> Path:
    return house.home / "specialists" / name


def head(house: Cluster, name: str) -> str:
    with house.client() as client:
        return client.show(name).row.object


def test_from_rows_to_a_filter_that_answers_with_the_new_specialist_at_once(house: Cluster, sh: Run, draw: str) -> None:
    found = good(sh, "check", draw)
    assert sum(found["rows"].values()) + found["held_out"] == found["files"][0]["rows"]
    run = good(sh, "prime", draw, "--examples", "2")
    assert (run["status"], run["stage"], run["stage_pass"]) == ("completed", "stage_a", 1)

    assert "has not been evaluated" in refused(sh, "promote", draw)
    entry = good(sh, "eval", draw)
    assert entry["metrics"] == {
        "valid_rate": 1.0,
        "prefix_integrity": 1.0,
        "eos_clean_stop": 1.0,
        "adherence": 1.0,
        "ood_pass_rate": 1.0,
    }
    assert all(check["passed"] for check in entry["gate"])
    assert [risk["passed"] for risk in entry["risks"]] == [True] * 4
    assert entry["workers"] == ["talk/0", "talk/1"], "the probes were spread over the workers"

    assert sh("filter", "make", draw, "--model", "talk", "--static", "--dir", "bin").returncode == 0
    with house.client() as client:
        client.turn("old", model="talk", save=draw, create=True, max_tokens=0)
        before = head(house, draw)
    dry = good(sh, "promote", draw, "--dry-run")
    assert (dry["before"], dry["after"]) == (before, run["made"])
    assert head(house, draw) == before
    good(sh, "promote", draw)
    assert head(house, draw) == run["made"]
    asked = sh("filter", "run", draw, "--model", "talk", "--static", text="[circle][palette:cool]")
    assert (asked.returncode, asked.stdout.strip()) == (0, CIRCLE)

    good(sh, "rollback", draw)
    assert head(house, draw) == before
    assert "nothing has been promoted" in refused(sh, "rollback", draw, code=4)
    assert sh("specialist", "report", draw).returncode == 0
    page = (folder(house, draw) / "report.html").read_text()
    assert run["id"] in page
    assert page.count('<circle fill="#28c">') >= 1
    assert "rolled back" in page
    view = json.loads((folder(house, draw) / "pipeline.json").read_text())
    assert (view["promoted"], view["runs"][0]["id"]) == (None, run["id"])


def test_what_fails_its_gate_is_promoted_by_force_alone_and_that_is_written_down(
    house: Cluster, sh: Run, draw: str
) -> None:
    run = good(sh, "prime", draw, "--examples", "1")
    entry = good(sh, "eval", draw)
    assert entry["metrics"]["valid_rate"] == 0.0
    said = refused(sh, "promote", draw)
    assert "does not pass the gate of stage_a: valid_rate 0 (fails: >= 0.98)" in said
    with house.client() as client:
        assert client.ls(draw).rows == []
    good(sh, "promote", draw, "--force")
    assert head(house, draw) == run["made"]
    event = Ledger(folder(house, draw)).events()[-1]
    assert event.event == "promoted"
    assert "does not pass the gate" in event.details["forced"]
    assert "did not exist" in refused(sh, "rollback", draw, code=4)


def test_a_run_is_chosen_by_stage_and_pass(house: Cluster, sh: Run, draw: str) -> None:
    first, second = good(sh, "prime", draw, "--examples", "2"), good(sh, "prime", draw, "--examples", "1")
    assert [run["id"] for run in good(sh, "runs", draw)] == [first["id"], second["id"]]
    good(sh, "eval", draw, "--stage", "stage_a", "--pass", "1")
    assert good(sh, "promote", draw, "--stage", "stage_a", "--pass", "1")["run"] == first["id"]
    assert "has not been evaluated" in refused(sh, "promote", draw)
    assert "no run of sft" in refused(sh, "promote", draw, "--stage", "sft", code=4)
    assert "give --stage, too" in refused(sh, "promote", draw, "--pass", "1", code=2)


def test_a_contract_that_has_changed_asks_for_a_new_evaluation(house: Cluster, sh: Run, draw: str) -> None:
    good(sh, "prime", draw, "--examples", "2")
    good(sh, "eval", draw)
    path = folder(house, draw) / "contract.toml"
    path.write_text(CONTRACT + "# stricter\n")
    assert "has not been evaluated" in refused(sh, "promote", draw)


@pytest.mark.parametrize("moved", [True, False])
def test_a_promotion_whose_process_died_is_settled_by_where_the_name_stands(
    house: Cluster, sh: Run, draw: str, moved: bool
) -> None:
    run = good(sh, "prime", draw, "--examples", "2")
    good(sh, "eval", draw)
    details = {"public": draw, "model": "talk", "before": "", "after": run["made"]}
    ledger = Ledger(folder(house, draw))
    ledger.append(Event(event="promoting", run=run["id"], at=now(), details=details))
    if moved:
        with house.client() as client:
            client.fork(f"#{run['made']}", [draw], model="talk")
    good(sh, "promote", draw, "--dry-run")
    assert ledger.events()[-1].event == ("promoted" if moved else "refused")


def test_a_plan_that_cannot_be_leaves_everything_as_it_was(house: Cluster, sh: Run, draw: str) -> None:
    path = folder(house, draw) / "plan.toml"
    path.write_text(path.read_text() + "speed = 3\n")
    for command in ("check", "prime", "eval", "promote", "runs"):
        assert "speed" in refused(sh, command, draw)
    assert not Ledger(folder(house, draw)).path.exists()


def test_rows_that_break_the_contract_start_no_run(house: Cluster, sh: Run, draw: str) -> None:
    rows = folder(house, draw) / "rows.txt"
    rows.write_text(rows.read_text() + "[circle]<svg>\n")
    assert "</svg> is missing" in refused(sh, "prime", draw)
    assert good(sh, "runs", draw) == []


def test_a_model_that_is_not_served_is_a_failed_run(house: Cluster, sh: Run, draw: str) -> None:
    path = folder(house, draw) / "plan.toml"
    path.write_text(path.read_text().replace('model = "talk"', 'model = "nobody"'))
    assert "nobody" in refused(sh, "prime", draw, code=4)
    assert [(run["status"], run.get("made", "")) for run in good(sh, "runs", draw)] == [("failed", "")]


def test_names_that_are_none_or_taken(sh: Run, draw: str) -> None:
    assert "already exists" in refused(sh, "init", draw, "--track", "svg", "--model", "talk", code=5)
    assert "is not a valid name" in refused(sh, "init", "../x", "--track", "svg", "--model", "talk")
    assert "there is no specialist 'nobody'" in refused(sh, "runs", "nobody", code=4)
