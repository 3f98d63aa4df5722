"""A message is for people and a code is for programs: nothing depends on what a message says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster import Cluster, scripted_toml
from rewording.reworded import original, reword

from clients.blocking import Client
from ssmprov.errors import NotFound

TESTS = Path(__file__).parents[1]

CASES = (
    "system/test_wording.py",
    "system/test_names.py::test_the_broker_killed_in_mid_turn_costs_nothing",
    "system/test_names.py::test_a_worker_killed_in_mid_turn_loses_only_that_turn",
    "system/test_names.py::test_sigterm_ends_turns_at_a_tokens_edge_and_answers_them",
    "clients/test_client_real.py::test_an_import_that_is_asked_for_again_has_one_effect_and_needs_no_file",
    "clients/test_client_real.py::test_every_error_of_the_tree_arrives_as_itself",
    "bridge_tcp/test_bridge_table.py::test_an_empty_live_context_is_saved_empty",
)
"""What is run in other words within `make test`; `make test ARGS='--reword 1 tests/system'` runs all of it."""


@pytest.fixture
def client(make_cluster: Callable[[str], Cluster]) -> Iterator[Client]:
    """A client of two scripted models, `talk` and `walk`."""
    cluster = make_cluster("")
    talk = scripted_toml(cluster.home)
    cluster.config.write_text(talk + talk.replace('"talk"', '"walk"'))
    with cluster.up().client() as found:
        yield found


def test_of_several_models_those_that_know_a_similar_context_say_so(client: Client) -> None:
    client.turn("root", model="talk", save="primed", max_tokens=0)
    client.turn("root", model="walk", save="other", max_tokens=0)
    with pytest.raises(NotFound, match=r"^talk: there is no context 'prined'; did you mean primed\?$"):
        client.show("prined")
    with pytest.raises(NotFound, match=r"^talk: there is no primed~3: primed has 1 step$"):
        client.show("primed~3")
    with pytest.raises(NotFound, match=r"^no model has a context 'zzz'; talk or walk are served$"):
        client.show("zzz")


def test_rewording_changes_every_word_and_can_be_undone() -> None:
    said = "worker talk/0 was lost (it fell silent);\nsend the turn again"
    other = reword(said)
    assert reword(other) == other
    assert original(f"again: {other}") == f"again: {said}"
    assert not {word for word in said.split() if word.isalpha()} & set(other.split())


@pytest.mark.timeout(400)
def test_nothing_depends_on_what_a_message_says(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if request.config.getoption("reword") is not None:
        pytest.skip("it is what runs now")
    command = [sys.executable, "-P", "-m", "pytest", "--reword", "1", "-p", "no:cacheprovider", "--timeout", "100"]
    command += ["--basetemp", str(tmp_path / "inner")]  # else it would remove what earlier runs have left, for minutes
    done = subprocess.run(
        [*command, *CASES], cwd=TESTS, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
