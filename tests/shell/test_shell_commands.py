"""The command line against real processes: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Run, runner
from cluster import Cluster, scripted_toml

PROGRAMS = Path(sys.executable).parent
PRIMED = "(Turn 1) [CONTEXT]: read this\n\n~~~(end)~~~\n\n"


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(answer(done))


def refused(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """One line on stderr, nothing on stdout, and the exit code."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("ssmprov: ")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.fixture
def primed(ssmprov: Run, request: pytest.FixtureRequest) -> Iterator[str]:
    """A context that has read one turn, under a name of the test's own."""
    name = f"primed/{request.node.name.split('[')[0]}"
    done = ssmprov("pipe", "--save", name, "--in", "CONTEXT", "--json", text="read this\n")
    assert parsed(done)["stop"] == "forced"
    yield name
    names = [row["name"] for row in parsed(ssmprov("ckpt", "ls", "--json"))]
    answer(ssmprov("ckpt", "rm", *names))


def test_status_and_models(ssmprov: Run) -> None:
    status = parsed(ssmprov("status", "--json"))
    assert {"name", "runtime", "fingerprint"} <= set(status["models"][0])
    keys = {"name", "model", "pid", "host", "epoch", "state", "slots", "running", "hot_bytes"}
    assert [keys <= set(worker) for worker in status["workers"]] == [True, True]
    assert [model["name"] for model in parsed(ssmprov("models", "--json"))] == ["talk"]
    assert "talk/1" in answer(ssmprov("status"))
    assert "scripted" in answer(ssmprov("models"))


def test_the_story_of_a_request(ssmprov: Run, talk: Cluster) -> None:
    with talk.client() as client:
        reply = client.turn("well", model="talk")
        [story] = client.status(story=reply.id.hex()).story
    assert [step.what for step in story.steps][-1] == "answered: done"
    lines = answer(ssmprov("status", "--story", reply.id.hex()[:16])).splitlines()
    assert lines[0] == f"turn {reply.id.hex()} of talk"
    assert lines[1].split() == ["AGO", "STEP", "WORKER"]
    assert re.search(r"\d\.\d{3} s +accepted, attempt 1 +-$", lines[2])
    assert re.search(r"\d\.\d{3} s +answered: done +talk/[01]$", lines[-1])
    [same] = parsed(ssmprov("status", "--json", "--story", reply.id.hex().upper()))
    assert same["steps"][0]["what"] == "accepted, attempt 1"
    refused(ssmprov("status", "--story", "f" * 33), 4, "knows no request whose id begins with")


def test_a_half_step_is_read_and_a_full_step_is_answered(ssmprov: Run, primed: str) -> None:
    half = ssmprov("pipe", "--load", primed, "--in", "USER", text="hi")
    assert answer(half) == "end)~~~\n\n"
    full = ssmprov("pipe", "--load", primed, "--in", "USER", "--out", "ECHO", "--turn", "2", text="hi\n")
    assert answer(full) == "as you say.\n\n~~~(end)~~~\n\n"
    bare = ssmprov("pipe", "--load", primed, "--in", "USER", "--out", "ECHO", "--bare", "--stream", text="hi\n")
    assert answer(bare) == "as you say.\n"


def test_a_turn_without_a_role_is_sent_as_it_is(ssmprov: Run, primed: str) -> None:
    done = parsed(ssmprov("pipe", "--load", primed, "--save", primed, "--json", text="well\n"))
    assert (done["text"], done["stop"], done["prefill_tokens"]) == ("hello!", "end", 0)
    assert answer(ssmprov("ckpt", "show", primed, "--text")) == f"{PRIMED}well\nhello!"


def test_limits_and_settings_of_a_turn(ssmprov: Run, primed: str) -> None:
    done = parsed(ssmprov("pipe", "--load", primed, "--max-tokens", "0", "--json", text="well"))
    assert (done["text"], done["stop"]) == ("", "read")
    done = parsed(ssmprov("pipe", "--load", primed, "--max-chars", "5", "--seed", "7", "--json", text="well"))
    assert (done["text"], done["stop"], done["seed"]) == ("hello", "limit", 7)
    assert answer(ssmprov("pipe", "--load", primed, "--settings", "greedy", "--set", "max=3", text="well")) == "hel"


def test_create_starts_a_missing_context(ssmprov: Run, primed: str) -> None:
    name = f"{primed}/new"
    refused(ssmprov("pipe", "--load", name, "--save", name, text="x"), 4, "no context")
    assert answer(ssmprov("pipe", "--load", name, "--save", name, "--create", text="x")) == "hello!"
    assert answer(ssmprov("ckpt", "show", name, "--text")) == "xhello!"


def test_show_in_json_has_the_promised_fields(ssmprov: Run, primed: str) -> None:
    shown = parsed(ssmprov("ckpt", "show", f"talk:{primed}", "--json"))
    assert {"name", "object", "model", "fingerprint", "parent", "tokens", "bytes", "created"} <= set(shown)
    assert (shown["name"], shown["model"], shown["text_bytes"]) == (primed, "talk", len(PRIMED))
    assert shown["object"][:12] in answer(ssmprov("ckpt", "show", primed))


def test_forks_share_an_object_and_go_their_own_ways(ssmprov: Run, primed: str) -> None:
    forked = parsed(ssmprov("ckpt", "fork", primed, "one", "two", "--spread", "--json"))
    assert sorted(forked["pins"]) == ["one", "two"]
    assert len(set(forked["pins"].values())) == 2
    parsed(ssmprov("ckpt", "fork", primed, "three", "--on", "w1", "--json"))
    answer(ssmprov("pipe", "--load", "one", "--save", "one", text="a"))
    rows = {row["name"]: row for row in parsed(ssmprov("ckpt", "ls", "--json"))}
    assert rows["two"]["object"] == rows["three"]["object"] == rows[primed]["object"] != rows["one"]["object"]
    assert rows["three"]["pinned"] == "talk/1"
    tree = answer(ssmprov("ckpt", "tree", "one")).splitlines()
    assert tree[0] == "talk"
    assert [line.index("#") > 0 for line in tree[1:]] == [True, True]
    assert "three [talk/1]" in tree[1]
    assert tree[2].startswith("   └─ one [")
    steps = parsed(ssmprov("ckpt", "log", "one", "--json"))
    assert [step["object"] for step in steps] == [rows["one"]["object"], rows["two"]["object"]]
    refused(ssmprov("ckpt", "fork", primed, "one"), 5, "taken")
    answer(ssmprov("ckpt", "fork", primed, "one", "--overwrite"))


def test_move_pins_and_unpin_takes_the_pin_away(ssmprov: Run, primed: str) -> None:
    answer(ssmprov("ckpt", "move", primed, "1"))
    assert parsed(ssmprov("ckpt", "show", primed, "--json"))["pinned"] == "talk/1"
    assert parsed(ssmprov("pipe", "--load", primed, "--json", text="x"))["worker"] == "talk/1"
    answer(ssmprov("ckpt", "move", primed, "--unpin"))
    assert parsed(ssmprov("ckpt", "show", primed, "--json"))["pinned"] == ""


def test_export_and_import_through_files_and_pipes(ssmprov: Run, primed: str, talk: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "a.ctx"
    assert parsed(ssmprov("ckpt", "export", primed, str(file), "--json"))["bytes"] == file.stat().st_size
    line = f"ssmprov ckpt export {primed} - | ssmprov ckpt import - copied"
    shell = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        env={**talk.environment, "PATH": f"{PROGRAMS}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shell.returncode, shell.stdout) == (0, ""), shell.stderr
    assert answer(ssmprov("ckpt", "show", "copied", "--text")) == PRIMED
    refused(ssmprov("ckpt", "import", str(file), primed), 5, "taken")
    refused(ssmprov("ckpt", "import", str(tmp_path / "none"), "x"), 4, "none")
    file.write_bytes(file.read_bytes()[:-1])
    refused(ssmprov("ckpt", "import", str(file), "x"), 1, "")


def test_care_through_the_broker_and_on_the_store_itself(
    ssmprov: Run, primed: str, talk: Cluster, tmp_path: Path
) -> None:
    store = ("--store", str(talk.home / ".checkpoints/talk"))
    for where in ((), store):
        assert parsed(ssmprov("ckpt", "verify", *where, "--json"))["faults"] == []
        assert "objects" in answer(ssmprov("ckpt", "gc", *where, "--dry-run"))
    nowhere = {"SSMPROV_BROKER": "ipc:///nowhere/broker.sock"}
    answer(ssmprov("ckpt", "export", primed, str(tmp_path / "a.ctx"), *store, **nowhere))
    answer(ssmprov("ckpt", "import", str(tmp_path / "a.ctx"), "again", *store, **nowhere))
    assert answer(ssmprov("ckpt", "show", "again", "--text")) == PRIMED
    refused(ssmprov("ckpt", "verify", "--store", str(tmp_path)), 4, "no store")


def test_a_store_is_mended_and_backed_up_while_it_serves(
    ssmprov: Run, primed: str, talk: Cluster, tmp_path: Path
) -> None:
    shown = parsed(ssmprov("ckpt", "show", primed, "--json"))
    store = talk.home / ".checkpoints/talk"
    state = store / "objects" / shown["object"][:2] / f"{shown['object']}.safetensors"
    done = parsed(ssmprov("ckpt", "backup", str(tmp_path / "b"), "--json"))
    assert done["copied"] == done["objects"] > 0
    assert "0 (0 B) were copied now" in ssmprov("ckpt", "backup", str(tmp_path / "b"), "--store", str(store)).stderr
    assert parsed(ssmprov("ckpt", "verify", "--store", str(tmp_path / "b"), "--json"))["faults"] == []
    state.write_bytes(b"spoiled")
    damaged = ssmprov("ckpt", "verify")
    assert damaged.returncode == 1
    assert f"state of {primed}; it can be read again from its tokens: `ssmprov ckpt verify --repair`" in damaged.stdout
    mended = answer(ssmprov("ckpt", "verify", "--repair"))
    assert mended.startswith(f"repaired: {state}")
    assert "0 faults left, 1 repairs" in mended
    assert (store / "quarantine" / state.name).read_bytes() == b"spoiled"
    assert parsed(ssmprov("ckpt", "verify", "--repair", "--store", str(store), "--json"))["repairs"] == []
    assert parsed(ssmprov("pipe", "--load", f"{primed}", "--in", "USER", "--json", text="hi"))["name"] == ""
    assert answer(ssmprov("ckpt", "show", primed, "--text")) == PRIMED


def test_replay_reads_the_same_text_again(ssmprov: Run, primed: str) -> None:
    done = parsed(ssmprov("ckpt", "replay", primed, "--json"))
    assert (done["tokens"], done["text_equal"]) == (len(PRIMED), True)
    answer(ssmprov("ckpt", "replay", "--prime", "-", "--save", "other", text="a text"))
    assert answer(ssmprov("ckpt", "show", "other", "--text")) == "a text"
    answer(ssmprov("ckpt", "replay", primed, "--to", "talk", "--save", "again"))
    assert answer(ssmprov("ckpt", "show", "again", "--text")) == PRIMED


def test_settings(ssmprov: Run) -> None:
    assert "greedy" in parsed(ssmprov("settings", "ls", "--json"))["names"]
    answer(ssmprov("settings", "set", "coder", "temp=0.25", "top_k=20"))
    assert parsed(ssmprov("settings", "show", "coder", "--json"))["values"]["top_k"] == 20
    assert "0.25" in answer(ssmprov("settings", "show", "coder.json"))
    refused(ssmprov("settings", "show", "codre"), 4, "did you mean coder?")
    refused(ssmprov("settings", "set", "coder", "temp=11"), 1, "between 0 and 10")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ckpt", "show", "nosuch"], 4, "no context"),
        (["ckpt", "show", "a/../b"], 1, "no part may begin with a dot"),
        (["ckpt", "show", "tlak:a"], 4, "did you mean talk?"),
        (["ckpt", "rm", "nosuch"], 4, "no context"),
        (["ckpt", "move", "nosuch", "0"], 4, "no context"),
        (["ckpt", "fork", "nosuch", "x"], 4, "no context"),
        (["ckpt", "ls", "--model", "nosuch"], 4, "no model"),
        (["pipe", "--settings", "greddy"], 4, "did you mean greedy?"),
        (["pipe", "--set", "temp=11"], 1, "temp must be between 0 and 10"),
        (["pipe", "--set", "tmp=1"], 1, "did you mean temp?"),
        (["pipe", "--save", "@bridge/1"], 1, "reserved"),
        (["--broker", "ipc:///nowhere/broker.sock", "models"], 3, "ssmprov up"),
        (["--broker", "nowhere", "status"], 1, "not a valid endpoint"),
        (["--config", "/nowhere.toml", "status"], 4, "no configuration file"),
    ],
)
def test_bad_input_is_one_line_with_a_hint(ssmprov: Run, words: list[str], code: int, message: str) -> None:
    refused(ssmprov(*words, text="x"), code, message)


def test_text_that_is_no_utf8_is_refused_before_anything_is_sent(talk: Cluster) -> None:
    done = subprocess.run(
        [PROGRAMS / "ssmprov", "pipe"], input=b"a\xff", env=talk.environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, b"ssmprov: standard input is not UTF-8 text: byte 1 is 0xff\n")


def test_a_prompt_of_ten_megabytes_is_refused_with_the_limit(ssmprov: Run) -> None:
    refused(ssmprov("pipe", text="x" * 10_000_000), 1, "8 MiB")


def complete(ssmprov: Run, *words: str, **environment: str) -> list[str]:
    done = ssmprov(
        _SSMPROV_COMPLETE="bash_complete", COMP_WORDS=" ".join(words), COMP_CWORD=str(len(words) - 1), **environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_names_complete(ssmprov: Run, primed: str) -> None:
    assert complete(ssmprov, "ssmprov", "ckpt", "show", "primed/") == [primed]
    assert complete(ssmprov, "ssmprov", "ckpt", "show", "talk:primed/") == [f"talk:{primed}"]
    assert complete(ssmprov, "ssmprov", "ckpt", "fr") == []
    assert complete(ssmprov, "ssmprov", "ckpt", "fo") == ["fork"]
    assert complete(ssmprov, "ssmprov", "models", "--mo") == []
    assert complete(ssmprov, "ssmprov", "ckpt", "ls", "--model", "ta") == ["talk"]
    assert complete(ssmprov, "ssmprov", "settings", "show", "gre") == ["greedy"]
    assert complete(ssmprov, "ssmprov", "pipe", "--settings", "gre") == ["greedy"]
    assert complete(ssmprov, "ssmprov", "pipe", "--load", "primed/") == [primed]


def test_completion_without_a_broker_is_silent(ssmprov: Run) -> None:
    assert complete(ssmprov, "ssmprov", "ckpt", "show", "a", SSMPROV_BROKER="ipc:///nowhere/broker.sock") == []


def test_a_bare_name_is_the_defaults_unless_only_one_other_model_has_it(
    make_cluster: Callable[[str], Cluster], tmp_path: Path
) -> None:
    first = scripted_toml(tmp_path)
    second, third = (first.replace('name = "talk"', f'name = "{name}"') for name in ("chat", "more"))
    cluster = make_cluster(first + second + "default = true\n" + third).up()
    run = runner(cluster)
    answer(run("pipe", "--save", "of-default", text="x"))
    answer(run("pipe", "--save", "talk:b", text="x"))
    assert parsed(run("ckpt", "show", "of-default", "--json"))["model"] == "chat"
    assert [row["model"] for row in parsed(run("ckpt", "ls", "--json"))] == ["chat", "talk"]
    assert [line for line in answer(run("ckpt", "tree")).splitlines() if "─" not in line] == ["chat", "more", "talk"]
    assert answer(run("ckpt", "tree", "b")).splitlines()[0] == "talk"
    answer(run("pipe", "--load", "b", "--save", "b", text="y"))
    assert parsed(run("ckpt", "show", "b", "--json"))["model"] == "talk"
    answer(run("pipe", "--model", "more", "--save", "b", text="x"))
    refused(run("ckpt", "show", "b"), 1, "more:b or talk:b")
    answer(run("pipe", "--model", "chat", "--save", "b", text="x"))
    assert parsed(run("ckpt", "show", "b", "--json"))["model"] == "chat"
    for words in (("show", "b"), ("log", "b"), ("export", "b", "b.ctx")):
        answer(run("ckpt", *words, SSMPROV_MODEL="talk"))
        refused(run("ckpt", words[0], "of-default", *words[2:], SSMPROV_MODEL="talk"), 4, "no context")
    assert parsed(run("ckpt", "show", "b", "--json", SSMPROV_MODEL="more"))["model"] == "more"
    assert parsed(run("ckpt", "show", "talk:b", "--json", SSMPROV_MODEL="more"))["model"] == "talk"
    refused(run("ckpt", "show", "nosuch"), 4, "no model has")
    assert "chat (default)" in answer(run("models"))
    assert "chat (default)" in answer(run("status"))
    assert parsed(run("status", "--json"))["default"] == "chat"
    answer(run("pipe", "--record", text="hello"))
    assert (cluster.home / ".context").read_text().startswith("chat:")
    answer(run("ckpt", "verify"))
