"""`ssmprov say` as a process: with a broker that runs, and with one that it starts for the call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from cli_runner import Run, runner
from cluster import PATIENCE_S, Cluster, scripted_toml

from ssmprov.configuration import CONFIG_FILE
from ssmprov.transcript import FENCE

ANSWER = ["The", " sea", ".", "\n\n", "~~~(", "end)~~~\n\n"]
SCRIPT: dict[str, Any] = {
    "replies": [
        {"after": "long" + FENCE + "(Turn 2) [INTERFACE]: ", "pieces": [f" w{n}" for n in range(2000)]},
        {"after": "[INTERFACE]: ", "pieces": ANSWER},
    ]
}
FIRST = f"(Turn 1) [USER]: What is it?{FENCE}(Turn 2) [INTERFACE]: The sea.{FENCE}"


@pytest.fixture(scope="module")
def sea(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("sea")
    cluster = Cluster(home, scripted_toml(home, script=SCRIPT)).up()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def run(sea: Cluster) -> Run:
    return runner(sea)


def ended(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# -- beside a broker


def test_it_prints_the_answer_and_nothing_else(run: Run) -> None:
    assert ended(run("say", "What is it?")) == (0, "The sea.\n", "")
    assert ended(run("say", "-", text="What is it?\n")) == (0, "The sea.\n", "")
    assert ended(run("say", text="What is it?")) == (0, "The sea.\n", "")
    assert run("say", "--stream", "What is it?").stdout == "The sea.\n"
    assert run("ckpt", "ls", "say/").stdout == run("ckpt", "ls", "nothing/").stdout, "nothing was saved"


def test_a_named_context_begins_goes_on_and_keeps_its_numbers(run: Run) -> None:
    assert ended(run("say", "--to", "say/a", "What is it?")) == (0, "The sea.\n", "started the context say/a\n")
    assert ended(run("say", "What is it?", "--to", "talk:say/a")) == (0, "The sea.\n", "")
    again = FIRST.replace("(Turn 2)", "(Turn 4)").replace("(Turn 1)", "(Turn 3)")
    assert run("ckpt", "show", "say/a", "--text").stdout == FIRST + again


def test_a_turn_that_was_left_open_is_closed_first(run: Run) -> None:
    run("pipe", "--save", "say/open", "--max-tokens", "2", text=f"(Turn 7) [USER]: x{FENCE}(Turn 8) [INTERFACE]: ")
    assert run("say", "--to", "say/open", "What is it?").stdout == "The sea.\n"
    text = run("ckpt", "show", "say/open", "--text").stdout
    assert f"(Turn 8) [INTERFACE]: The sea{FENCE}(Turn 9) [USER]: What is it?{FENCE}(Turn 10) [INTERFACE]: The" in text


def test_those_who_speak_at_once_take_turns(run: Run, sea: Cluster) -> None:
    program = str(Path(sys.executable).with_name("ssmprov"))
    words = [program, "say", "--to", "say/many", "What is it?"]
    speakers = [subprocess.Popen(words, env=sea.environment, stdout=subprocess.PIPE) for _ in range(3)]
    assert [speaker.communicate(timeout=PATIENCE_S)[0] for speaker in speakers] == [b"The sea.\n"] * 3
    text = run("ckpt", "show", "say/many", "--text").stdout
    assert [text.count(f"(Turn {number})") for number in range(1, 7)] == [1] * 6


def test_an_answer_that_a_limit_cuts_says_so(run: Run) -> None:
    code, out, err = ended(run("say", "What is it?", "--max-tokens", "2"))
    assert (code, out) == (0, "The sea\n")
    assert err.startswith("the answer was cut at its limit, after 2 tokens")
    assert "--max-tokens" in err
    code, out, err = ended(run("say", "What is it?", "--set", "max=4"))
    assert (code, out) == (0, "The\n")
    assert "--set max=" in err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("", ), 2, "nothing to say"),
        (("x", "--to", ".hidden"), 1, "not a valid name"),
        (("x", "--model", "tolk"), 4, "did you mean talk"),
        (("x", "--settings", "nosuch"), 4, "nosuch"),
        (("x", "--set", "temp=hot"), 1, "temp"),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_its_exit_code(run: Run, words: tuple[str, ...], code: int, says: str) -> None:
    done = run("say", *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr


def test_a_broker_that_was_named_is_not_replaced(run: Run) -> None:
    done = run("say", "x", SSMPROV_BROKER="ipc:///nowhere/broker.sock")
    assert (done.returncode, done.stdout) == (3, "")


def test_ctrl_c_closes_the_turn(sea: Cluster) -> None:
    words = [str(Path(sys.executable).with_name("ssmprov")), "say", "--stream", "--to", "say/cut", "long"]
    process = subprocess.Popen(words, env=sea.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    begun = process.stdout.read(3)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    with sea.client() as client:
        assert client.text("say/cut").endswith((begun + rest).decode().removesuffix("\n") + FENCE)


# -- without a broker


class Alone:
    """A user without a broker: a working directory with a configuration, or without one, and a temporary folder."""

    def __init__(self, folder: Path, toml: str) -> None:
        self.home, self.temporary = folder / "home", folder / "tmp"
        self.temporary.mkdir()
        if toml:
            self.home.mkdir()
            (self.home / CONFIG_FILE).write_text(toml)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SSMPROV_")}
        self.environment = kept | {"SSMPROV_HOME": str(self.home), "TMPDIR": str(self.temporary)}

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("ssmprov")), *words],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def say(self, *words: str) -> tuple[int, str, str]:
        process = self.start("say", *words)
        out, err = process.communicate(timeout=PATIENCE_S)
        return process.returncode, out, err

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("TMPDIR") == str(self.temporary) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def files(self) -> list[str]:
        return sorted(path.name for folder in (self.home, self.temporary) for path in folder.glob("*"))


@pytest.fixture
def alone(tmp_path: Path) -> Alone:
    return Alone(tmp_path, scripted_toml(tmp_path, script=SCRIPT, workers=2) + '[[bridge]]\nport = 1\nmodel = "talk"\n')


def test_without_a_broker_one_is_started_for_the_call_and_leaves_nothing(alone: Alone) -> None:
    code, out, err = alone.say("What is it?")
    assert (code, out) == (0, "The sea.\n")
    assert "`ssmprov up`" in err
    assert len(err.splitlines()) == 1
    assert alone.files() == [CONFIG_FILE]
    assert alone.processes() == []


def test_a_named_context_is_kept_in_the_store_of_the_working_directory(alone: Alone) -> None:
    assert alone.say("--to", "kept", "What is it?")[:2] == (0, "The sea.\n")
    assert alone.say("--to", "kept", "What is it?")[:2] == (0, "The sea.\n")
    assert alone.files() == [".checkpoints", CONFIG_FILE]
    cluster = Cluster(alone.home, (alone.home / CONFIG_FILE).read_text().partition("[[bridge]]")[0])
    try:
        with cluster.up().client() as client:
            assert client.text("kept").count("The sea.") == 2
            assert "(Turn 4)" in client.text("kept")
    finally:
        cluster.close()
    assert alone.processes() == []


def test_a_bare_name_finds_the_only_model_that_has_it(tmp_path: Path) -> None:
    talk = scripted_toml(tmp_path, script=SCRIPT)
    alone = Alone(tmp_path, talk.replace('name = "talk"', 'name = "first"') + talk)
    assert alone.say("--to", "talk:other", "What is it?")[0] == 0
    assert "started" not in alone.say("--to", "other", "What is it?")[2]
    assert "started" in alone.say("--to", "new", "What is it?")[2]
    assert sorted(path.name for path in (alone.home / ".checkpoints").iterdir()) == ["first", "talk"]


def test_a_model_that_cannot_start_says_why(tmp_path: Path) -> None:
    alone = Alone(tmp_path, '[[model]]\nname = "talk"\nruntime = "scripted"\npath = "nowhere.json"\n')
    code, out, err = alone.say("x")
    assert (code, out) == (1, "")
    assert "nowhere.json" in err
    assert alone.files() == [CONFIG_FILE]
    assert alone.say("x", "--model", "tolk")[0] == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_broker_starts_or_serves_leaves_nothing(alone: Alone, number: signal.Signals) -> None:
    process = alone.start("say", "long", "--stream")
    assert process.stderr is not None
    process.stderr.readline()  # it is being started
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert (alone.files(), alone.processes()) == ([CONFIG_FILE], [])
    process = alone.start("say", "long", "--stream")
    assert process.stdout is not None
    process.stdout.read(3)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert (alone.files(), alone.processes()) == ([CONFIG_FILE], [])


def test_no_process_outlives_one_that_is_killed(alone: Alone) -> None:
    process = alone.start("say", "long", "--stream")
    assert process.stdout is not None
    process.stdout.read(3)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    until = time.monotonic() + PATIENCE_S
    while left := alone.processes():
        assert time.monotonic() < until, left
        psutil.wait_procs(left, timeout=1)


def test_the_shipped_model_answers_without_a_working_directory(tmp_path: Path) -> None:
    alone = Alone(tmp_path, "")
    code, out, _ = alone.say("hello")
    assert code == 0
    assert out.strip()
    assert "(Turn" not in out
    assert "~~~" not in out
    assert alone.files() == []
    assert not alone.home.exists()
