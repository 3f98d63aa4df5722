"""The slash commands of PIPE, and the script NAME: what a directory and a file's name choose."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_runner import run_in
from cluster import Cluster
from places import Shell, good, own, recorded

from ssmprov.rooms import CONFIG
from ssmprov.transcript import FENCE

KNOBS = ("/t", "/p", "/k", "/min_p", "/pen_freq", "/pen_pres", "/pen_rep", "/max")


def sampled(cluster: Cluster, place: Path) -> dict[str, float]:
    """The settings with which the last turn of the directory was sampled."""
    with cluster.client() as client:
        return client.show(own(place)).settings


def test_a_value_that_is_chosen_holds_for_the_next_turns_here(sh: Shell, place: Path, cluster: Cluster) -> None:
    assert good(sh("PIPE", "/t 0.5")) == ""
    assert good(sh("PIPE", "/k 7")) == ""
    assert good(sh("PIPE", "/T")) == "temp = 0.5\n"
    for _ in range(2):
        good(sh("PIPE --in USER --out OK", "one"))
        assert (sampled(cluster, place)["temp"], sampled(cluster, place)["top_k"]) == (0.5, 7)
    good(sh("PIPE --in USER --out OK --set temp=0.25", "two"))
    assert (sampled(cluster, place)["temp"], sampled(cluster, place)["top_k"]) == (0.25, 7)
    good(sh("PIPE --in USER --out OK --settings greedy", "three"))
    assert (sampled(cluster, place)["temp"], sampled(cluster, place)["top_k"]) == (0, 0)
    good(sh("mkdir other && cd other && PIPE --in USER --out OK", "elsewhere"))
    assert sampled(cluster, place / "other")["temp"] != 0.5


def test_settings_are_saved_and_loaded_as_a_set(sh: Shell, place: Path, cluster: Cluster) -> None:
    good(sh("PIPE", "/t 0.5"))
    size = len(good(sh("PIPE", "/save_set mine.json")))
    assert size > len("[saved set -> mine.json (0 bytes)]\n")
    good(sh("PIPE", "/t 0.9"))
    assert good(sh("PIPE", "/load_set mine.json")) == "[loaded set <- mine.json]\n"
    good(sh("PIPE --in USER --out OK", "one"))
    assert sampled(cluster, place)["temp"] == 0.5
    done = sh("PIPE", "/load_set nowhere")
    assert (done.returncode, done.stdout) == (4, b"")
    assert good(sh("PIPE", "/t")) == "temp = 0.5\n"


def test_each_value_is_shown_and_so_is_the_help(sh: Shell) -> None:
    good(sh("PIPE", "/max 99"))
    shown = [good(sh("PIPE", knob)) for knob in KNOBS]
    assert shown[-1] == "max = 99\n"
    text = good(sh("PIPE", "/?"))
    for line in (*shown, "routing = softmax\n", "slotmask = off\n"):
        assert line in text
    for command in (*KNOBS, "/save", "/load_set", "/probe", "/?"):
        assert f"`{command}" in text


@pytest.mark.parametrize("command", ["/t hot", "/t 11", "/k 1.5", "/slotmask x", "/routing best", "/nonsense"])
def test_a_command_that_cannot_be_done_changes_nothing(sh: Shell, place: Path, command: str) -> None:
    done = sh("PIPE", command)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not (place / ".settings.json").exists()
    assert recorded(place) == ""


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"values": {"heat": 1}}', b'{"values": {"temp": 99}}', b'{"x": 1}', b" " * 70_000]
)
def test_damaged_settings_are_told_and_nothing_is_sent(sh: Shell, place: Path, data: bytes) -> None:
    (place / ".settings.json").write_bytes(data)
    done = sh("PIPE --in USER --out OK", "one")
    assert (done.returncode, b".settings.json is damaged" in done.stderr) == (1, True)
    assert recorded(place) == ""


def test_code_that_run_executes_cannot_choose_settings(sh: Shell, place: Path) -> None:
    good(sh("PIPE --in BASH", """echo '{"values": {"temp": 9}}' > .settings.json; echo done"""))
    sh("RUN")
    assert good(sh("PIPE", "/t")) != "temp = 9\n"


def test_an_empty_context_is_saved_before_anything_was_said(sh: Shell, place: Path, cluster: Cluster) -> None:
    assert good(sh("PIPE", "/save blank")).startswith("[saved -> blank (")
    good(sh("PIPE --in USER", "one"))
    assert good(sh("PIPE", "/load blank")) == "[loaded <- blank]\n"
    with cluster.client() as client:
        assert client.text("blank") == client.text(own(place)) == recorded(place) == ""


def test_a_copy_of_the_script_name_is_a_filter_for_the_context_of_that_name(
    sh: Shell, place: Path, cluster: Cluster
) -> None:
    with cluster.client() as client:
        client.turn("(Turn 1) [X]: primed" + FENCE, model="talk", save="coder", max_tokens=0)
        before = client.text("coder")
        shutil.copy(CONFIG / "scripts" / "NAME", place / "coder")
        assert good(sh("./coder --out OK --static", "once")) == "fine\n"
        assert client.text("coder") == before
        for count in (1, 2):
            assert good(sh("cat | ./coder --out OK", "again")) == "fine\n"
            assert client.text("coder").count("[USER]: again") == count
        assert client.text("coder").startswith(before)


def test_the_settings_file_is_small_and_readable(sh: Shell, place: Path) -> None:
    good(sh("PIPE", "/t 0.5"))
    assert json.loads((place / ".settings.json").read_bytes())["values"] == {"temp": 0.5}


def test_how_probes_read_holds_for_the_next_ones_here(slotted: Cluster, tmp_path: Path) -> None:
    def pipe(text: str) -> str:
        done = run_in(slotted, tmp_path, "PIPE", "--model", "slots", text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    plain = pipe("/probe abc")
    assert (pipe("/routing topk 2"), pipe("/slotmask 0")) == ("", "")
    assert (pipe("/routing"), pipe("/slotmask")) == ("routing = topk 2\n", "slotmask = 0\n")
    assert pipe("/probe abc") != plain
    assert (pipe("/routing softmax"), pipe("/slotmask off")) == ("", "")
    assert pipe("/probe abc") == plain
