"""The benchmarks run and write what they say they write; how fast anything is, no test asserts."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import bare, decode, fanout, llama, llama_peer, llama_server, plots, report, streams, weights
from benchmarks.cli import bench
from benchmarks.groups import GROUPS, load
from benchmarks.measure import Bound, Plan, at_least, at_most, curve, figure, interleave, median_s
from benchmarks.producer import text_of
from benchmarks.serving import environment
from ssmprov import rooms


def test_rounds_are_interleaved_and_their_order_turns() -> None:
    order: list[str] = []
    taken = interleave(3, {name: lambda name=name: order.append(name) or len(order) for name in "ab"})
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert taken == {"a": [1, 4, 5], "b": [2, 3, 6]}


def test_a_figure_compares_within_each_round() -> None:
    found = figure("group", "name", "ms", ("ours", [2.0, 9.0, 4.0]), ("bare", [1.0, 3.0, 4.0]), target=at_most(2))
    assert found.ratio.values == [2.0, 3.0, 1.0]
    assert (found.ratio.median, found.ratio.min, found.ratio.max) == (2.0, 1.0, 3.0)
    assert (found.measured.label, found.measured.spread.median) == ("ours", 4.0)


def test_a_figure_needs_both_sides_of_every_round() -> None:
    with pytest.raises(ValueError, match="zip"):
        figure("group", "name", "ms", ("ours", [2.0]), ("bare", [1.0, 3.0]))


def test_the_median_is_that_of_every_call() -> None:
    calls: list[int] = []
    assert median_s(5, lambda: calls.append(0)) >= 0
    assert len(calls) == 5


def test_the_table_shows_medians_and_spreads() -> None:
    one = figure("group", "name", "ms", ("ours", [2.0, 9.0, 4.0]), ("bare", [1.0, 3.0, 4.0]), target=at_most(2))
    table = report.markdown(report.Report(machine=report.machine(), quick=True, figures=[one]))
    row = "| name | ms | ours: 4 (2..9) | bare: 3 (1..4) | **2** (1..3) | at most 2: met |  |"
    assert row in table.splitlines()
    assert "not for publication" in table


@pytest.mark.parametrize(
    ("target", "met"),
    [
        (None, None),
        (at_most(2), True),
        (at_most(1.9), False),
        (at_least(2), True),
        (at_least(2.1), False),
        (at_most(4, of="measured"), True),
        (at_least(5, of="measured"), False),
    ],
)
def test_a_target_is_met_by_the_median(target: Bound | None, met: bool | None) -> None:
    found = figure("group", "name", "ms", ("ours", [2.0, 9.0, 4.0]), ("bare", [1.0, 3.0, 4.0]), target=target)
    assert found.met is met


def test_what_is_missed_is_said() -> None:
    one = figure("group", "name", "ms", ("ours", [2.0]), ("bare", [1.0]), target=at_most(1.5, of="measured"))
    table = report.markdown(report.Report(machine=report.machine(), quick=False, figures=[one]))
    assert "| at most 1.5 ms: **missed** |" in table


def test_a_curve_is_a_table_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = {"served": {1: [2.0, 4.0, 3.0], 8: [9.0]}, "bare": {8: [10.0]}}
    one = curve("decode", "tokens of all contexts", x="contexts", y="tokens/s", lines=lines, log_x=True)
    aimed = figure("decode", "one", "ms", ("ours", [2.0]), ("bare", [1.0]), target=at_most(1.5))
    whole = report.Report(machine=report.machine(), quick=True, figures=[aimed], curves=[one])
    table = report.markdown(whole).splitlines()
    assert "| contexts | served | bare |" in table
    assert "| 1 | 3 (2..4) |  |" in table
    assert "| 8 | 9 (9..9) | 10 (10..10) |" in table
    drawn = plots.draw(whole, tmp_path)
    assert [path.name for path in drawn] == ["targets.png", "decode-tokens-of-all-contexts.png"]
    for path in drawn:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000


def test_what_was_written_is_shown_again(tmp_path: Path) -> None:
    one = figure("group", "name", "ms", ("ours", [2.0]), ("bare", [1.0]), target=at_least(1.5))
    whole = report.Report(machine=report.machine(), quick=False, figures=[one])
    report.write(whole, tmp_path / "earlier.json")
    assert report.read(tmp_path / "earlier.json") == whole
    shown = CliRunner().invoke(bench, ["--show", str(tmp_path / "earlier.json"), "--out", str(tmp_path / "out")])
    assert shown.exit_code == 0
    assert report.markdown(whole) in shown.stdout
    (tmp_path / "other.json").write_text('{"version": 1}')
    refused = CliRunner().invoke(bench, ["--show", str(tmp_path / "other.json"), "--out", str(tmp_path / "out")])
    assert refused.exit_code == 2
    assert "other.json was not written by `ssmprov bench`" in refused.stderr


@pytest.mark.parametrize(
    ("seq", "offset", "piece"), [(3, 8, b"002 "), (2, 4, b"001 "), (2, 12, b"003 "), (2, 8, b"003 ")]
)
def test_a_stream_with_a_gap_or_another_text_is_noticed(seq: int, offset: int, piece: bytes) -> None:
    stream = fanout.Open()
    stream.take(1, 0, text_of(2), text_of(4))
    with pytest.raises(RuntimeError, match="gap"):
        stream.take(seq, offset, piece, text_of(4))
    stream.take(2, 8, text_of(4)[8:], text_of(4))
    assert stream.have == len(text_of(4)) == 16


def test_a_group_that_fails_is_told_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toys.py").write_text(
        "from benchmarks.measure import figure\n"
        "def well(plan):\n"
        "    return [figure('toys', 'one', 'ms', ('ours', [1.0]), ('bare', [1.0]))]\n"
        "def ill(plan):\n"
        "    raise RuntimeError('the disk is gone')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(GROUPS, "forks", "toys:ill")
    monkeypatch.setitem(GROUPS, "move", "toys:well")
    out = tmp_path / "out"
    done = CliRunner().invoke(bench, ["--only", "forks", "--only", "move", "--out", str(out)])
    assert done.exit_code == 1
    assert "forks: RuntimeError: the disk is gone" in done.stderr
    assert "these groups failed: forks" in done.stderr
    assert [one.name for one in report.read(out / "benchmarks.json").figures] == ["one"]


@pytest.mark.parametrize("name", list(GROUPS))
def test_each_group_can_be_loaded(name: str) -> None:
    assert callable(load(name))


FIGURES = {
    "round-trip": "through the broker, p50",
    "catalogue": "resolve a name, 1,000 checkpoints",
    "streams": "32 streams through the broker",
    "clients": "requests of 100 clients",
    "llama": "mini, 16 contexts",
    "batching": "scheduling of a step at 8 contexts, greedy, mini",
}
"""One figure of each group that is run here."""


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One quick run of these groups, and where it wrote: each process of its own would load torch and draw anew."""
    out = tmp_path_factory.mktemp("quick") / "out"
    groups = [group for group in FIGURES if group != "llama" or importlib.util.find_spec("llama_cpp")]
    only = [word for group in groups for word in ("--only", group)]
    arguments = ["--quick", *only, "--json", str(out.with_name("figures.json")), "--out", str(out)]
    done = subprocess.run(
        rooms.command("benchmarks", *arguments),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    return out, done


@pytest.mark.timeout(300)
@pytest.mark.parametrize("group", FIGURES)
def test_a_quick_run_writes_its_figures(quick_run: tuple[Path, subprocess.CompletedProcess[str]], group: str) -> None:
    if group == "llama":
        pytest.importorskip("llama_cpp")
    out, done = quick_run
    assert done.returncode == 0, done.stderr
    found = report.read(out.with_name("figures.json"))
    assert found.quick
    assert found.version == report.VERSION
    assert FIGURES[group] in {one.name for one in found.figures}
    for one in found.figures:
        assert len(one.ratio.values) == len(one.measured.spread.values) == len(one.against.spread.values) >= 3
        assert 0 < one.ratio.min <= one.ratio.median <= one.ratio.max
        assert f"| {one.name} |" in done.stdout
    kept = {path.suffix for path in out.iterdir()}
    assert kept <= {".md", ".png"}, "what was written while measuring is gone"


def test_the_gain_of_many_contexts_is_held_against_the_bare_models() -> None:
    rates = {"served 1": 10.0, "bare 1": 20.0, "served 8": 60.0, "bare 8": 80.0}
    taken = {side: [streams.Taken(rate, ["text"])] for side, rate in rates.items()}
    taken["bare 8"] = [streams.Taken(80.0, ["other"])]
    one, eight, gain = streams.figures("group", "toy", (1, 8), taken, target=at_least(0.95), gain=at_least(0.95))
    assert (one.ratio.median, one.measured.label, one.met) == (0.5, "served, same text", False)
    assert (eight.ratio.median, eight.measured.label, eight.target) == (0.75, "served, other text", None)
    assert (gain.measured.spread.median, gain.against.spread.median, gain.met) == (6.0, 4.0, True)
    lines = {
        line.label: [(at.x, at.spread.median) for at in line.points]
        for line in streams.scale("g", "n", (1, 8), taken).lines
    }
    assert lines == {"served": [(1.0, 10.0), (8.0, 60.0)], "bare": [(1.0, 20.0), (8.0, 80.0)]}


def test_each_context_has_a_prompt_of_its_own() -> None:
    assert len(set(streams.LETTERS)) == len(streams.LETTERS) >= max(decode.MANY)


def test_forks_are_held_against_copies(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    taken = bare.Bare(weights.endless_mini(tmp_path / "mini.safetensors"), threads=1).fork(count=3)
    torch.set_num_threads(before)
    assert taken.pop("bytes") == 4 * 5 * (2 * 128 + 2 * 64 * 64)
    assert sorted(taken) == ["copies", "copy", "fresh", "load", "loads", "save"]
    assert min(taken.values()) > 0


def test_without_llama_cpp_its_group_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    said: list[str] = []
    assert llama.measure(Plan(tmp_path, quick=True, say=said.append)) == []
    assert len(said) == 1
    assert "`make llama`" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_without_llama_server_its_group_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("llama_cpp")
    said: list[str] = []
    monkeypatch.setenv(llama_peer.PROGRAM, str(tmp_path / "nowhere"))
    assert llama_server.measure(Plan(tmp_path, quick=True, say=said.append)) == []
    assert len(said) == 1
    assert "`make llama-server`" in said[0]
    assert llama_peer.PROGRAM in said[0]


def test_prompts_of_a_comparison_with_llama_server_never_begin_alike() -> None:
    texts = count()
    found = [llama_server.prompt(texts, length) for length in (llama_server.SHORT, llama_server.LONG) * 3]
    assert len({text[:4] for text in found}) == len(found)


def test_the_head_of_an_endless_file_has_no_row_for_control_tokens(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    source = weights.as_gguf(weights.endless_mini(tmp_path / "mini.safetensors"))
    path = weights.endless_gguf(source, tmp_path / "endless.gguf")
    before, after = (
        {one.name: one.data for one in gguf.GGUFReader(file).tensors}["output.weight"] for file in (source, path)
    )
    assert before[0].any()
    assert not after[0].any()
    assert (before[1:] == after[1:]).all()
