"""The pages on ASM: their commands and programs run as they stand, and print what the pages say."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from ssmprov import __version__
from ssmprov.main import main

ROOT = Path(__file__).parents[3]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?")
TRAINING = re.compile(r"<!-- training: begin -->.*<!-- training: end -->", re.DOTALL)
"""It takes minutes, and has tests of its own."""


def blocks(path: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    page = TRAINING.sub("", (ROOT / path).read_text(encoding="utf-8"))
    return BLOCK.findall(page)


def run(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """The standard output of a command line, which must succeed. `python -m` without the seconds of a new process."""
    match shlex.split(line):
        case ["python", "-m", module, *words]:
            with monkeypatch.context() as patch:
                patch.delitem(sys.modules, module, raising=False)
                patch.setattr(sys, "argv", [module, *words])
                with pytest.raises(SystemExit) as ended:
                    runpy.run_module(module, run_name="__main__")
            assert ended.value.code == 0
        case ["ssmprov", *words]:
            assert main(words) == 0
        case _:
            raise AssertionError(f"what is {line}?")
    return capsys.readouterr().out


def assert_alike(found: str, expected: str) -> None:
    """The same words, and the same numbers but for rounding."""
    assert NUMBER.sub("#", found).split() == NUMBER.sub("#", expected).split()
    numbers = [[float(one.replace(",", "")) for one in NUMBER.findall(text)] for text in (found, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=0.01, abs=2e-6)


def test_the_commands_print_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran, printed, compared = 0, "", 0
    for language, text in blocks("docs/asm/REPRODUCIBILITY.md"):
        if language == "python":
            exec(text, {})
        elif language == "sh":
            lines = [line for line in text.splitlines() if not line.startswith(("make", "export"))]
            printed = "".join(run(line, monkeypatch, capsys) for line in lines)
            ran += len(lines)
        else:
            assert_alike(printed, text)
            compared += 1
    assert (ran, compared) == (4, 2)
    assert {path.name for path in (tmp_path / "runs" / "mine").iterdir()} == {"smoke.json", "probe.json", "probe.png"}


@pytest.mark.parametrize("page", ["docs/asm/METHOD.md", "models/asm/README.md"])
def test_the_programs_print_what_the_page_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = 0
    for language, text in blocks(page):
        if language == "python":
            exec(text, {})
            ran += 1
        elif not language:
            assert_alike(capsys.readouterr().out, text)
    assert ran == 1


@pytest.mark.parametrize("page", [*sorted((ROOT / "docs" / "asm").glob("*.md")), ROOT / "models" / "asm" / "README.md"])
def test_links_lead_somewhere(page: Path) -> None:
    for target, _, anchor in (
        link.partition("#") for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w-]", "", head.lower().replace(" ", "-")) for head in heads]


def test_the_citation_is_complete() -> None:
    yaml = pytest.importorskip("yaml")
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited.keys() >= {"cff-version", "message", "title", "authors", "license", "version"}
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", __version__)
    [original] = cited["references"]
    assert original.keys() >= {"type", "title", "authors"}
    assert original["repository-code"].endswith("digitaldaimyo/ASA")
