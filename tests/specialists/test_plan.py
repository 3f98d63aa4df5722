"""Plans and contracts: every key is known, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from specialists.contract import read_contract
from specialists.plan import Plan, read_plan, risks
from ssmprov.errors import BadRequest

PLAN = """
name = "svg"
track = "svg"
model = "rwkv7-mini"
public = "draw"
[data]
rows = "rows.txt"
[stages.sft]
examples = 10
"""
CONTRACT = """
track = "svg"
scorer = "xml"
[[probe]]
id = "a"
prompt = "[circle]"
contains = ["circle"]
"""


def plan(tmp_path: Path, text: str) -> Plan:
    (tmp_path / "plan.toml").write_text(text)
    return read_plan(tmp_path)


def test_a_plan_is_read(tmp_path: Path) -> None:
    found = plan(tmp_path, PLAN)
    assert found.stage("sft").examples == 10
    assert found.stage("dpo").examples is None
    assert risks(found, 0.7) == {}


def test_risky_choices_are_listed(tmp_path: Path) -> None:
    found = plan(
        tmp_path, PLAN.replace('rows = "rows.txt"', 'rows = "rows.txt"\nascii = false') + "[eval]\nmax_tokens = 9\n"
    )
    assert risks(found, 0.9) == {"ascii": False, "max_tokens": 9, "temperature": 0.9}


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("examples = 10", "exmples = 10", "exmples"),
        ("[stages.sft]", "[stages.sftt]", "is not a stage"),
        ("examples = 10", "examples = 0", "examples"),
        ('name = "svg"', 'name = "../svg"', "is not a valid name"),
        ('track = "svg"', 'track = "png"', "no kind of rows called 'png'"),
        ('public = "draw"', 'public = "a b"', "a b"),
        ('rows = "rows.txt"', 'train = "a"', "give all of"),
        ('rows = "rows.txt"', 'rows = "a"\ntest = "b"', "either"),
        ('rows = "rows.txt"', "shares = [1, 1, 1]", "sum to 1"),
        ('name = "svg"', 'schema = "other"\nname = "svg"', "schema"),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_what_is_wrong_in_a_plan_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        plan(tmp_path, PLAN.replace(old, new))


def test_without_a_plan_it_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="specialist init"):
        read_plan(tmp_path)


def test_a_contract_is_read(tmp_path: Path) -> None:
    path = tmp_path / "contract.toml"
    path.write_text(CONTRACT)
    contract, digest = read_contract(path)
    assert (contract.samples, contract.temperature, len(digest)) == (3, 0.0, 64)
    assert contract.probe[0].expecting().tags == ("circle",)
    assert contract.probe[0].expecting().contains == ("circle",)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('scorer = "xml"', 'scorer = "xlm"', "no scorer"),
        ('track = "svg"', 'track = "x"', "no kind of rows"),
        ('contains = ["circle"]', 'contain = ["circle"]', "contain"),
        ('contains = ["circle"]', 'matches = "("', "not a valid regular expression"),
        ('contains = ["circle"]', 'type = "other"', "type"),
        ('scorer = "xml"', 'scorer = "xml"\nsamples = 2', "samples"),
        ("[[probe]]", '[[probe]]\nid = "a"\nprompt = "x"\n[[probe]]', "two probes"),
        ('id = "a"', 'id = ""', "id"),
        ('prompt = "[circle]"', "", "prompt"),
    ],
)
def test_what_is_wrong_in_a_contract_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    path = tmp_path / "contract.toml"
    path.write_text(CONTRACT.replace(old, new))
    with pytest.raises(BadRequest, match=why):
        read_contract(path)
