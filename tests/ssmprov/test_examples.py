"""The example configurations and what is said about their keys: they can be copied as they stand."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from ssmprov import configuration
from ssmprov.configuration import MODEL_KEYS, parse
from ssmprov.runtimes import options_of
from ssmprov.settings import Sets, Settings, shipped

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config/examples").glob("*.toml"))
RUNTIMES = ("llama", "rwkv", "asm", "scripted")
OPTION = re.compile(r"^# (?=\w+ = )", re.MULTILINE)

each = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def test_there_is_one_for_each_kind_and_one_for_all_of_llama_cpp() -> None:
    assert {path.stem for path in EXAMPLES} == {"rwkv7-g1-7.2b", "falcon3-mamba-7b", "smollm2", "several", "asm"}
    several = configuration.load(ROOT / "config/examples/several.toml").tables
    alone = [configuration.load(path).tables.model[0] for path in EXAMPLES if path.stem not in ("several", "asm")]
    assert sorted((m.name, m.path) for m in several.model) == sorted((m.name, m.path) for m in alone)
    assert len({bridge.port for bridge in several.bridge}) == len(several.model)


@each
def test_each_is_whole(path: Path, tmp_path: Path) -> None:
    found = configuration.load(path, tmp_path)
    runtimes = {entry.name for entry in entry_points(group="ssmprov.runtimes")}
    assert {bridge.model for bridge in found.tables.bridge} == {model.name for model in found.tables.model}
    for model in found.tables.model:
        assert model.runtime in runtimes
        assert found.path(model.path).is_relative_to(Path.home())
        assert model.settings in shipped()
        assert Sets(None, model.settings).default() != Settings()


@each
def test_what_is_commented_out_can_be_taken_in(path: Path) -> None:
    text, count = OPTION.subn("", path.read_text(encoding="utf-8"))
    assert count
    assert parse(text, path.name).model[0].devices == ("cuda:0" if path.stem == "asm" else "gpu:0",)


def test_each_family_has_its_set() -> None:
    tables = configuration.load(ROOT / "config/examples/several.toml").tables
    assert [model.settings for model in tables.model] == ["rwkv7", "falcon-mamba", "smollm2"]


def test_the_documentation_names_every_key_of_a_model() -> None:
    text = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    section = text.partition("## The table")[2].partition("### Memory")[0]
    keys = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    options = {key for name in RUNTIMES for key in getattr(options_of(name), "__struct_fields__", ())}
    assert sorted(keys) == sorted({*MODEL_KEYS, *options})
    [example] = re.findall(r"```toml\n(.*?)```", section, re.DOTALL)
    assert parse(example, "docs/models.md").model[0].runtime == "llama"
    assert set(tomllib.loads(example)["model"][0]) == {"name", "runtime", "path"}


@pytest.mark.parametrize("page", ["README.md", "docs/models.md"])
def test_its_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert targets
    assert [target for target in targets if not ((ROOT / page).parent / target).exists()] == []
