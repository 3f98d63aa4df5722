"""The shipped tracks: their rows keep their contract and pass their own scorer, and their probes can be asked."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from specialists.contract import read_contract
from specialists.data import load_data
from specialists.grammars import grammar_of
from specialists.plan import DataTable, Plan
from specialists.rows import read_rows
from specialists.scorers import Expected, scorer_of
from specialists.scorers.base import ends_cleanly
from specialists.scorers.drawing import PALETTES
from specialists.scorers.route import AGENTS
from specialists.tracks import TRACKS, routing, svg, track_of
from ssmprov.errors import BadRequest


@pytest.mark.parametrize("name", TRACKS)
def test_rows_keep_the_contract_and_are_all_that_their_tags_ask_for(tmp_path: Path, name: str) -> None:
    track = TRACKS[name]
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{row}\n" for row in track.rows(1, 300)))
    rows, report = read_rows(path, grammar_of(name))
    report.refuse()
    judge = scorer_of(track.scorer)
    for row in {row.digest: row for row in rows}.values():
        if not {"lang:c", "lang:bash"}.isdisjoint(row.tags):
            continue
        score = judge(row.answer, Expected(tags=row.tags))
        assert score.passes, (row, score)
        assert ends_cleanly(row.answer, score)


def test_rows_repeat_by_seed() -> None:
    for track in TRACKS.values():
        assert list(track.rows(3, 20)) == list(track.rows(3, 20))
        assert list(track.rows(3, 20)) != list(track.rows(4, 20))


def test_wide_rows_ask_for_the_same_drawings_with_their_tags_in_any_order(tmp_path: Path) -> None:
    track = TRACKS["svg"]
    usual = {}
    for file, lines in (("rows.txt", track.rows(1, 2000)), ("wide.txt", track.wide_rows(1, 300))):
        (tmp_path / file).write_text("".join(f"{row}\n" for row in lines))
        rows, report = read_rows(tmp_path / file, grammar_of("svg"))
        report.refuse()
        if not usual:
            usual = {frozenset(row.tags): row for row in rows}
            continue
        known = [(row, usual[key]) for row in rows if (key := frozenset(row.tags)) in usual]
        assert len(known) > 200
        assert all(row.answer == other.answer for row, other in known)
        assert {"palette:cool", "style:filled", "circle", "bar-chart"} <= {row.tags[0] for row in rows}
    assert list(TRACKS["code"].wide_rows(1, 9)) == []


def test_what_a_probe_asks_is_held_out_whatever_the_order_of_its_tags(tmp_path: Path) -> None:
    contract = tmp_path / "contract.toml"
    contract.write_text('track = "svg"\nscorer = "xml"\n[[probe]]\nid = "a"\nprompt = "[b][a]"\n')
    drawn = "<svg></svg>"
    (tmp_path / "test").write_text(f"[e]{drawn}\n")
    (tmp_path / "validation").write_text(f"[b][a]<svg> </svg>\n[d]{drawn}\n")
    (tmp_path / "train").write_text("".join(f"{prompt}{drawn}\n" for prompt in ("[a][b]", "[a]", "[a][b][c]")))
    data = DataTable(train="train", validation="validation", test="test")
    found = load_data(
        Plan(name="x", track="svg", model="m", public="x", data=data), tmp_path, read_contract(contract)[0]
    )
    assert [row.prompt for row in found.parts["train"]] == ["[a]", "[a][b][c]"]
    assert [row.prompt for row in found.parts["validation"]] == ["[d]"]
    assert found.held_out == 2


@pytest.mark.skipif(not (shutil.which("cc") and shutil.which("bash")), reason="needs cc and bash")
def test_programs_of_c_and_bash_are_parsed(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{row}\n" for row in TRACKS["code"].rows(2, 60)))
    rows, _ = read_rows(path, grammar_of("code"))
    some = [row for row in rows if not {"lang:c", "lang:bash"}.isdisjoint(row.tags)][:12]
    assert all(scorer_of("code")(row.answer, Expected(tags=row.tags)).passes for row in some)


@pytest.mark.parametrize("name", TRACKS)
def test_contracts_are_read_and_probes_of_both_types_are_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / "contract.toml"
    path.write_text(TRACKS[name].contract)
    contract, _ = read_contract(path)
    assert contract.track == name
    assert {probe.kind for probe in contract.probe} == {"in", "ood"}
    assert all(probe.expecting().tags for probe in contract.probe)


@pytest.mark.parametrize("name", TRACKS)
def test_no_row_is_an_out_of_distribution_probe(tmp_path: Path, name: str) -> None:
    path = tmp_path / "contract.toml"
    path.write_text(TRACKS[name].contract)
    contract, _ = read_contract(path)
    prompts = {probe.prompt for probe in contract.probe if probe.kind == "ood"}
    rows = tmp_path / "rows.txt"
    rows.write_text("".join(f"{row}\n" for row in TRACKS[name].rows(1, 3000)))
    found, _ = read_rows(rows, grammar_of(name))
    assert prompts.isdisjoint(row.prompt for row in found)


def test_generators_and_scorers_agree() -> None:
    assert {name: frozenset(colours) for name, colours in svg.PALETTES.items()} == dict(PALETTES)
    assert {(kind.agent, kind.name) for kind in routing._KINDS} == set(AGENTS.items())


def test_no_such_track() -> None:
    with pytest.raises(BadRequest, match="there is no track"):
        track_of("png")
