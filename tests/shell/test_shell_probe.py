"""`ssmprov probe`, and `/probe` for PIPE, beside a broker with a model that has slots and one that has none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from cli_runner import Run, runner
from cluster import Cluster
from slotted import LAYERS, MODEL

CONTEXT = f"{MODEL}:probed"


@pytest.fixture(scope="module")
def run(slotted: Cluster) -> Iterator[Run]:
    """The command line beside a context that has read a text."""
    with slotted.client() as client:
        client.turn("Once upon", model=MODEL, save="probed", max_tokens=0)
        yield runner(slotted)
        client.rm(["probed"], model=MODEL)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_table_for_people_and_json_for_programs(run: Run) -> None:
    shown = answer(run("probe", CONTEXT, " a time", "--routing", "topk:2", "--slotmask", "0,3", "--reply", "5"))
    lines = shown.splitlines()
    assert lines[0].startswith("7 tokens read after 9 tokens of #")
    assert lines[1] == "routing topk 2, slotmask 0 3 (read)"
    assert lines[3].split()[:6] == ["LAYER", "ENTROPY", "MEAN", "GATE", "GAMMA", "STRENGTH"]
    assert [line.split()[0] for line in lines[4 : 4 + LAYERS]] == [str(n) for n in range(LAYERS)]
    assert {"NEXT", "PLAIN"} <= set(lines[5 + LAYERS].split())
    options = ("--routing", "topk:2", "--slotmask", "0,3", "--reply", "5", "--top", "3", "--json")
    found = json.loads(answer(run("probe", CONTEXT, *options, text=" a time")))
    assert (found["tokens"], found["context_tokens"], found["intervened"]) == (7, 9, True)
    assert (len(found["next"]), len(found["plain_next"]), len(found["layers"])) == (3, 3, LAYERS)
    assert f"reply: {found['reply']}" in lines
    assert f"plain reply: {found['plain_reply']}" in lines
    assert f"divergence from plain reading: {found['divergence']:.4g}" in lines


@pytest.mark.parametrize(
    ("words", "text", "code", "message"),
    [
        (("nowhere", "text", "--model", MODEL), "", 4, "no context 'nowhere'"),
        (("", "text", "--model", "talk"), "", 1, "the runtime 'scripted' has no addressed slots"),
        ((CONTEXT, "text", "--routing", "top2"), "", 1, "unknown routing 'top2': use softmax, top1 or topk N"),
        ((CONTEXT,), "", 1, "a probe needs a text"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, words: tuple[str, ...], text: str, code: int, message: str) -> None:
    done = run("probe", *words, text=text)
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("ssmprov: ")
    assert message in line


def test_pipe_probes_the_live_context(run: Run, slotted: Cluster) -> None:
    said = run("pipe", "--record", "--model", MODEL, text="/probe a text\n")
    assert said.stderr == ""
    assert answer(said).startswith("6 tokens read after the empty context")
    assert not (slotted.home / ".transcript.txt").exists()
    said = run("pipe", "--record", "--model", MODEL, text="/routing top1\n")
    assert (said.returncode, said.stderr) == (0, "")
