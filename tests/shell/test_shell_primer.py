"""`ssmprov primer`: a transcript of the system's own source, that reads back byte for byte and is only read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cli_runner import Run

from models.rwkv7.tokenizer import WorldTokenizer
from shell.primer import DEFAULT_PARTS, estimate, fitting, introduction, parts, primer, sources_of, transcript
from ssmprov.errors import BadRequest
from ssmprov.main import main
from ssmprov.transcript import FENCE_REST, escape, oddities, parse, turns_of

ROOT = Path(__file__).parents[2]
ROLES = (
    "ANALYSIS", "BASH", "CONTEXT", "FILE", "INTERFACE", "OUTPUT", "PLAN", "PYTHON", "QUERY", "QUOTE", "RECAP", "USER",
    "VISITOR",
)  # fmt: skip
PATHS = re.compile(r"^([0-9]+)  (\S+)$", re.MULTILINE)


def extracted(text: str) -> dict[str, bytes]:
    """What GET_FILE writes of each FILE turn, by the path that the list gives it."""
    turns = {turn.number: turn for turn in turns_of(text)}
    return {path: turns[int(number)].content.encode() for number, path in PATHS.findall(turns[1].content)}


@pytest.mark.parametrize("part", parts())
def test_every_file_of_every_part_comes_back_byte_for_byte(part: str) -> None:
    files = extracted(transcript(sources_of([part])))
    python = {str(path.relative_to(ROOT)) for path in (ROOT / part).rglob("*.py")}
    assert python <= set(files)
    for path, content in files.items():
        assert content == (ROOT / path).read_bytes(), path


def test_it_is_numbered_from_0_without_gaps_and_nothing_in_it_is_odd_but_the_open_end() -> None:
    items = parse(transcript(sources_of(DEFAULT_PARTS)))
    turns = turns_of(transcript(sources_of(DEFAULT_PARTS)))
    assert [turn.number for turn in turns] == list(range(len(items)))
    assert Counter(turn.role for turn in turns) == {"CONTEXT": 3, "FILE": len(turns) - 3}
    assert [str(odd).partition(": ")[2] for odd in oddities(items)] == [f"turn {turns[-1].number} is open"]


@pytest.mark.parametrize("chosen", [(), ("config",)])
def test_it_ends_in_a_half_step(chosen: tuple[str, ...]) -> None:
    text = transcript(sources_of(chosen))
    assert text.endswith("\n\n~~~(")
    *closed, last = turns_of(text)
    assert all(turn.closed for turn in closed)
    assert last.half
    assert turns_of(text + FENCE_REST)[-1].closed


def test_the_introduction_names_every_role_and_tool_and_needs_no_escape() -> None:
    text = introduction()
    assert all(f"* {role}: " in text for role in ROLES)
    assert all(f"`{tool}" in text for tool in ("PIPE", "GET_FILE", "PUT_FILE", "RUN", "QUOTE", "ssmprov"))
    assert escape(text) == text
    assert escape(f"\n{text}") == f"\n{text}"


def test_get_file_writes_the_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = sources_of(["config"])
    (tmp_path / ".transcript.txt").write_bytes((transcript(sources) + FENCE_REST).encode())
    monkeypatch.chdir(tmp_path)
    for number, source in enumerate(sources, 2):
        assert main(["get", str(number), "again"]) == 0
        assert (tmp_path / "again").read_bytes() == (ROOT / source.path).read_bytes()


# -- the budget


@pytest.mark.parametrize("more", [0, 200, 2_000, 5_000, 20_000])
def test_the_budget_is_kept_by_leaving_out_whole_files(more: int) -> None:
    sources = sources_of(["clients", "config"])
    budget = estimate(()) + more
    kept, left_out = fitting(sources, budget)
    assert estimate(kept) <= budget
    assert sorted([*kept, *left_out], key=sources.index) == sources
    assert kept == sorted(kept, key=sources.index)
    for source in left_out:
        assert estimate([*kept, source]) > budget - 200  # each was left out for want of room, and no other reason


def test_a_budget_that_is_large_enough_leaves_nothing_out() -> None:
    sources = sources_of(DEFAULT_PARTS)
    assert fitting(sources, estimate(sources)) == (sources, [])
    kept, left_out = fitting(sources, estimate(sources) - 1)
    assert (len(kept), len(left_out)) == (len(sources) - 1, 1)


def test_a_budget_below_the_introduction_is_refused() -> None:
    with pytest.raises(BadRequest, match="the introduction alone has about"):
        fitting(sources_of(["config"]), 100)


def test_the_estimate_is_no_less_than_a_real_vocabulary_takes() -> None:
    pytest.importorskip("rwkv")
    tokenizer = WorldTokenizer()
    for part in parts():
        sources = sources_of([part])
        assert len(tokenizer.encode(transcript(sources))) <= estimate(sources), part


# -- the command


def test_what_was_left_out_is_said_and_not_written(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["primer", "--part", "ssmprov", "--max-tokens", "6000"]) == 0
    out, err = capfd.readouterr()
    files = extracted(out)
    assert "ssmprov/__init__.py" in files
    assert "ssmprov/ops.py" not in files
    assert "ssmprov/ops.py (" in err
    assert "about" in err.splitlines()[0]
    assert int(re.findall(r"about ([0-9]+) tokens", err)[0]) <= 6000


def test_parts_and_their_files_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["primer", "--list", "--json"]) == 0
    assert [row["part"] for row in json.loads(capfd.readouterr().out)] == parts()
    assert main(["primer", "--list", "--part", "config"]) == 0
    out = capfd.readouterr().out
    assert out.startswith("FILE ")
    assert "\nconfig/default.toml " in out


def test_an_unknown_part_is_refused_with_the_nearest(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["primer", "--part", "workes"]) == 1
    assert "'workes'; did you mean workers?" in capfd.readouterr().err


def test_a_file_is_written_whole_and_nothing_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "primer.txt"
    assert main(["primer", "--part", "config", "--out", str(path)]) == 0
    assert path.read_bytes().decode() == transcript(sources_of(["config"]))
    assert [found.name for found in tmp_path.iterdir()] == ["primer.txt"]
    assert capfd.readouterr().out == ""


def test_names_of_parts_complete() -> None:
    [part] = [param for param in primer.params if param.name == "chosen"]
    assert [item.value for item in part.shell_complete(primer.make_context("primer", []), "b")] == [
        "broker", "bridge_tcp", "benchmarks",
    ]  # fmt: skip


def test_it_works_where_only_the_packages_are(tmp_path: Path) -> None:
    for package in ("ssmprov", "clients", "config"):
        (tmp_path / package).symlink_to(ROOT / package)
    call = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ssmprov.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", call, str(tmp_path), "primer", "--list", "--json"],
        capture_output=True, text=True, check=True, timeout=200,
    )  # fmt: skip
    assert [row["part"] for row in json.loads(done.stdout)] == ["ssmprov", "config", "clients"]


def test_it_primes_a_context_that_has_read_exactly_this_and_was_asked_nothing(ssmprov: Run) -> None:
    text = ssmprov("primer", "--part", "config").stdout
    done = ssmprov("pipe", "--model", "talk", "--save", "primer/whole", text=text)
    assert (done.returncode, done.stdout) == (0, FENCE_REST), done.stderr
    assert ssmprov("ckpt", "show", "primer/whole", "--text").stdout == text + FENCE_REST
