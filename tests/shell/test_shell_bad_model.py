"""One model that cannot be served: `ssmprov up` serves the rest, and says which one, why, and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import runner
from cluster import Cluster, Process, rwkv_toml, scripted_toml

from ssmprov.errors import NotFound
from workers.checkpoints import Store

UP = ("-c", "import sys; from ssmprov.main import main; sys.exit(main())", "up", "--ready-file", "ready.json")


STATEMENTS = {
    "missing library": "import torhc",
    "bug": "1 / 0",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


def plugin(directory: Path, statement: str) -> str:
    """A runtime `odd` that does one thing when it is opened; returns the folder for PYTHONPATH."""
    about = directory / "plugin" / "odd-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[ssmprov.runtimes]\nodd = odd:open_runtime\n")
    (directory / "plugin" / "odd.py").write_text(f"def open_runtime(plan):\n    {statement}\n")
    return str(directory / "plugin")


def bad(directory: Path, how: str) -> str:
    """The table of a model `bad` that cannot be served."""
    table = '\n[[model]]\nname = "bad"\n'
    match how:
        case "missing file":
            return f'{table}runtime = "rwkv"\npath = "nowhere.pth"\n'
        case "damaged file":
            toml = rwkv_toml(directory, "bad")
            path = directory / "bad.pth"
            path.write_bytes(path.read_bytes()[:5000])
            return "\n" + toml
        case "missing library" | "bug" | "killed":
            return f'{table}runtime = "odd"\npath = "odd"\n'
        case "another model's store":
            Store(directory / "taken", "other").close()
            script = directory / "x.json"
            script.write_text('{"replies": []}')
            return f'{table}runtime = "scripted"\npath = "{script}"\ncheckpoints = "{directory / "taken"}"\n'
    raise AssertionError(how)


def up(cluster: Cluster) -> Process:
    cluster.environment.pop("SSMPROV_SUPERVISED")
    return cluster.start("up", *UP)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("missing file", r"nowhere\.pth"),
        ("damaged file", r"bad\.pth"),
        ("missing library", "Python module 'torhc'"),
        ("another model's store", "holds the checkpoints of other"),
        ("killed", "killed by SIGKILL after each of 3 starts.*runs out of memory"),
        ("bug", "ZeroDivisionError: division by zero. This is a bug in ssmprov"),
    ],
)
def test_the_rest_is_served_and_the_reason_told(
    make_cluster: Callable[[str], Cluster], tmp_path: Path, how: str, why: str
) -> None:
    cluster = make_cluster(scripted_toml(tmp_path) + bad(tmp_path, how))
    cluster.environment["PYTHONPATH"] = plugin(tmp_path, STATEMENTS.get(how, ""))
    process = up(cluster)
    process.expect(rf" up \| bad/0 cannot start: .*{why}")
    process.expect(r" up \| serving talk.* at ")
    process.expect(rf" up \| not serving bad: .*{why}.*start `ssmprov up` again")
    ready = json.loads((cluster.home / "ready.json").read_text())
    assert set(ready["pids"]) == {"broker", "talk/0"}
    assert list(ready["not_served"]) == ["bad"]
    with cluster.client() as client:
        assert client.turn("x", model="talk").text == "hello!"
        while not client.status().not_served:
            pass
        began = time.monotonic()
        with pytest.raises(NotFound, match=why) as told:
            client.turn("x", model="bad")
        assert time.monotonic() - began < 20  # and not only when the workers of a configured model are overdue
        assert told.value.details["name"] == "bad"
        assert [card.name for card in client.models()] == ["talk"]
    shown = runner(cluster)("status")
    assert "bad is not served: " in shown.stdout
    assert process.stop() == 0


def test_one_bad_worker_leaves_the_model_to_the_others(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = make_cluster(rwkv_toml(tmp_path, workers=2) + 'devices = ["cpu", "moon"]\n')
    process = up(cluster)
    process.expect(r" up \| tiny/1 cannot start: .*moon")
    process.expect(r" up \| serving tiny.* at ")
    with cluster.client() as client:
        assert client.status().not_served == {}
        client.turn("x", max_tokens=1)
    assert process.stop() == 0


def test_if_no_model_can_be_served_it_ends(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> None:
    second = bad(tmp_path, "another model's store").replace('"bad"', '"worse"')
    process = up(make_cluster(bad(tmp_path, "missing file") + second))
    assert process.wait() == 1
    said = "\n".join(process.lines)
    assert "bad/0 cannot start: " in said
    assert "worse/0 cannot start: " in said
