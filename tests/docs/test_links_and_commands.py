"""The documentation: its links lead somewhere, and the commands and options that it names exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest
from typed_pages import ROOT

from ssmprov.main import COMMANDS, cli, load_command

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "models/**/*.md", "shell/texts/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
PROGRAMS = {
    "PIPE": "pipe",
    "GET_FILE": "get",
    "GET": "get",
    "PUT_FILE": "put",
    "PUT": "put",
    "RUN": "run",
    "QUOTE": "quote",
}
HISTORY = "CHANGELOG.md"
"""It also names commands that are gone."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CALL = re.compile(rf"(?<![\w./$\"'-])(?<!from )(ssmprov|{'|'.join(PROGRAMS)})(?= )([^\n]*)")
END = re.compile(r"\s[|&<>#]|\s2>|[;)`]|\s*$", re.MULTILINE)
"""Where a command ends: at an operator, a comment or the end of its line."""


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# -- links


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_the_links_lead_somewhere(page: Path) -> None:
    assert lost_links(page, page.read_text(encoding="utf-8")) == []


def lost_links(page: Path, text: str) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in target]
    return [target for target in targets if not leads_somewhere(page, *target.partition("#")[::2])]


def leads_somewhere(page: Path, file: str, anchor: str) -> bool:
    path = (page.parent / file).resolve() if file else page
    return path.exists() and (not anchor or anchor in anchors(path))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for head in re.findall(r"^#{1,6} (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head)
        anchor = re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-")
        found[f"{anchor}-{found[anchor]}" if anchor in found else anchor] = 1
    return set(found)


def test_a_lost_link_is_found() -> None:
    text = "[a](shell.md) [b](#here) [c](gone.md) [d](shell.md#turns) [e](shell.md#gone) [f](https://gone)\n\n# Here\n"
    assert lost_links(ROOT / "docs/commands.md", text) == ["#here", "gone.md", "shell.md#gone"]


# -- commands


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != HISTORY], ids=named)
def test_the_commands_exist(page: Path) -> None:
    assert list(mistakes(page.read_text(encoding="utf-8"))) == []


def mistakes(text: str) -> Iterator[str]:
    """What a page names as a command or an option of ours but is none, in blocks of code and in `code`."""
    blocks = FENCED.findall(text)
    commands = [block for language, block in blocks if language == "sh"]
    lines = [line for language, block in blocks if not language for line in block.splitlines() if CALL.match(line)]
    spans = re.findall(r"`([^`]+)`", FENCED.sub("", text))
    for code in (*commands, *lines, *spans):
        for program, rest in CALL.findall(re.sub(r"\\\n\s*", "", code)):
            words = split(rest[: END.search(rest).start()])
            start = [PROGRAMS[program]] if program in PROGRAMS else []
            yield from (f"{program}{rest}: {what}" for what in unknown(cli, "", [*start, *words]))


def split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an apostrophe of a sentence
        return text.split()


def unknown(command: click.Command, name: str, words: list[str]) -> Iterator[str]:
    """The words that are no subcommand or option where they are. `a|b` stands for both."""
    known = {option: each for each in command.params for option in (*each.opts, *each.secondary_opts)}
    below = subcommands(command, name)
    while words:
        word, *words = words
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0].rstrip(",.:]")
            if option not in (*known, "--help", "-h"):
                yield option
            elif below and option in known and not known[option].is_flag and "=" not in word:
                words = words[1:]
        elif below:
            for choice in word.split("|"):
                if choice in below:
                    yield from unknown(below[choice](), f"{name} {choice}".strip(), words)
                elif re.fullmatch(r"[a-z-]+", choice):
                    yield choice
            return


def subcommands(command: click.Command, name: str) -> dict[str, object]:
    """How to load each subcommand of a command."""
    if command is cli:
        return {word: lambda word=word, at=at: load_command(word, at) for word, (at, _) in COMMANDS.items()}
    if not isinstance(command, click.Group):
        return {}
    context = click.Context(command, info_name=name)
    return {word: lambda word=word: command.get_command(context, word) for word in command.list_commands(context)}


def test_what_does_not_exist_is_found() -> None:
    text = """
    Run `ssmprov ckpt ls|lost --all`, `PIPE --in USER | wc -l`, `ssmprov --home DIR status --lost`, `ssmprov COMMAND`.
    ```sh
    printf x | ssmprov pipe --save new --gone 3 | cat --all   # --not this
    ssmprov lost
    ```
    """
    text = "\n".join(line.removeprefix("    ") for line in text.splitlines())
    assert [line.rpartition(": ")[2] for line in mistakes(text)] == ["--gone", "lost", "lost", "--lost"]
