"""`ssmprov keys`: what a person types to let a machine in, and what it prints."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable

import pytest
from cli_runner import Run, runner
from cluster import Cluster


@pytest.fixture
def machine(make_cluster: Callable[[str], Cluster]) -> Run:
    return runner(make_cluster(""))


def told(done: subprocess.CompletedProcess[str]) -> str:
    """The command that was printed to be run elsewhere."""
    assert done.returncode == 0, done.stderr
    return next(line.strip() for line in done.stderr.splitlines() if line.strip().startswith("ssmprov keys allow"))


def test_the_command_that_new_prints_lets_the_key_in(make_cluster: Callable[[str], Cluster]) -> None:
    here, there = runner(make_cluster("")), runner(make_cluster(""))
    for name, role in (("client", "generate"), ("worker", "worker"), ("phone", "generate")):
        made = here("keys", "new", name)
        public = made.stdout.strip()
        assert len(public) == 40
        program, *words = shlex.split(told(made))
        assert program == "ssmprov"
        done = there(*words)
        assert done.returncode == 0, done.stderr
        listed = json.loads(there("keys", "ls", "--json").stdout)["allowed"].values()
        assert (public, role) in [(entry["public"], entry["role"]) for entry in listed]


def test_new_tells_what_to_set_where(machine: Run) -> None:
    assert "export SSMPROV_KEY=phone" in machine("keys", "new", "phone").stderr
    assert "SSMPROV_KEY" not in machine("keys", "new").stderr
    broker = machine("keys", "new", "broker")
    assert f"export SSMPROV_BROKER_KEY='{broker.stdout.strip()}'" in broker.stderr
    again = machine("keys", "new", "broker")
    assert (again.returncode, again.stdout) == (5, "")
    assert "already exists" in again.stderr


def test_a_public_key_may_begin_with_a_hyphen(machine: Run) -> None:
    for public in ("-" + "a" * 39, "--" + "b" * 38, "-h" + "c" * 38):
        done = machine("keys", "allow", f"n{ord(public[-1])}", public, "--role", "read")
        assert done.returncode == 0, done.stderr
    assert len(json.loads(machine("keys", "ls", "--json").stdout)["allowed"]) == 3


def test_a_role_is_changed_and_a_key_revoked(machine: Run) -> None:
    machine("keys", "new")
    assert machine("keys", "allow", "client").stderr == (
        "client may list and show contexts, read their text, export them\n"
    )
    machine("keys", "allow", "client", "--role", "admin")
    assert machine("keys", "ls").stdout.splitlines()[1].split()[:2] == ["client", "admin"]
    machine("keys", "allow", "client")
    assert machine("keys", "ls").stdout.splitlines()[1].split()[:2] == ["client", "admin"]
    assert machine("keys", "revoke", "client").returncode == 0
    gone = machine("keys", "revoke", "client")
    assert (gone.returncode, gone.stderr) == (4, "ssmprov: there is no allowed key 'client'\n")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["allow", "x", "short"], 4, "is neither a public key nor a file"),
        (["allow", "x"], 4, "is neither a public key nor a file"),
        (["allow", "../x", "a" * 40], 1, "is not a valid name for a key"),
        (["allow", "x", "a" * 40, "--role", "root"], 2, "root"),
        (["new", "a/b"], 1, "is not a valid name for a key"),
        (["revoke", "x"], 4, "no allowed key 'x'"),
    ],
)
def test_bad_input_changes_nothing(machine: Run, words: list[str], code: int, says: str) -> None:
    done = machine("keys", *words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(machine("keys", "ls", "--json").stdout) == {"allowed": {}, "made": {}}


def test_up_says_whose_key_is_missing(make_cluster: Callable[[str], Cluster]) -> None:
    run = runner(make_cluster('[broker]\nlisten = ["tcp://127.0.0.1:5998"]\n'))
    run("keys", "new", "broker")
    for says in ("make it with `ssmprov keys new client`", "run `ssmprov keys allow client`"):
        done = run("up")
        assert done.returncode in (1, 4)
        assert says in done.stderr
        assert done.stderr.count("\n") == 1
        run("keys", "new")
