"""The reference in docs/commands.md is what click knows about the commands.

After a change of a command or an option, write it anew:

    .venv/bin/python -P tests/docs/test_commands_page.py
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ssmprov.main import COMMANDS, cli, load_command

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/commands.md"
MARK = "<!-- commands: the rest is written by tests/docs/test_commands_page.py -->\n"
ROOMS_WITHOUT_TESTS = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
AS_IT_IS = "\b\n"
"""How click marks a paragraph whose lines stay as they are."""
BETWEEN_OUR_PROCESSES = {"SSMPROV_READY_FD", "SSMPROV_SUPERVISED"}


def reference() -> Iterator[str]:
    for name, command, below in commands():
        yield from section(name, command, below)


def commands() -> Iterator[tuple[str, click.Command, dict[str, str]]]:
    """Every command with its name, and the line of each command below it."""
    yield "ssmprov", cli, {name: line for name, (_, line) in COMMANDS.items()}
    for name, (target, _) in COMMANDS.items():
        yield from command_and_below(f"ssmprov {name}", load_command(name, target))


def command_and_below(name: str, command: click.Command) -> Iterator[tuple[str, click.Command, dict[str, str]]]:
    below = {}
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        found = {word: command.get_command(context, word) for word in command.list_commands(context)}
        below = {word: each for word, each in found.items() if each is not None and not each.hidden}
    yield name, command, {word: each.get_short_help_str(400) for word, each in below.items()}
    for word, each in below.items():
        yield from command_and_below(f"{name} {word}", each)


def section(name: str, command: click.Command, below: dict[str, str]) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    yield f"\n{'#' * min(4, 2 + max(0, name.count(' ') - 1))} `{name}`\n"
    yield f"```sh\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```\n"
    yield from paragraphs(command)
    rows = [row for each in command.params if (row := option_row(each, context))]
    if rows:
        yield "| option | default | what it does |\n|---|---|---|"
        yield from [*rows, ""]
    if below:
        yield "| command | what it does |\n|---|---|"
        for word, line in below.items():
            yield f"| [`{word}`](#{f'{name} {word}'.replace(' ', '-')}) | {cell(line)} |"
        yield ""


def paragraphs(command: click.Command) -> Iterator[str]:
    """The help as Markdown. A paragraph after \\b keeps its lines."""
    for text in (command.help, command.epilog):
        for paragraph in inspect.cleandoc(text or "").split("\n\n"):
            if paragraph.startswith(AS_IT_IS):
                yield f"```sh\n{paragraph.removeprefix(AS_IT_IS)}\n```\n"
            elif paragraph:
                yield escaped(" ".join(paragraph.split())) + "\n"


def option_row(parameter: click.Parameter, context: click.Context) -> str:
    """The row of an option, '' for a hidden one and for an argument, which the usage line shows."""
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return ""
    value = "" if parameter.is_flag or parameter.count else f" {parameter.make_metavar(context).removesuffix(' RANGE')}"
    value += " ..." if parameter.multiple else ""
    names = ", ".join(f"`{name}{value}`" for name in (*parameter.opts, *parameter.secondary_opts))
    told = parameter.help or ""
    if isinstance(parameter.type, (click.IntRange, click.FloatRange)):
        told += bounds(parameter.type)
    if parameter.envvar:
        told += f" The environment variable is `{parameter.envvar}`."
    names = names.replace("|", "\\|")
    return f"| {names} | {default(parameter)} | {cell(told)} |"


def default(option: click.Option) -> str:
    if option.secondary_opts and isinstance(option.default, bool):
        return f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    shown = option.default if type(option.default) in (str, int, float) else ""
    return "" if shown == "" else f"`{shown}`"


def bounds(kind: click.IntRange | click.FloatRange) -> str:
    if kind.max is None:
        return f" At least {kind.min:g}."
    return f" At most {kind.max:g}." if kind.min is None else f" From {kind.min} to {kind.max}."


def cell(text: str) -> str:
    return escaped(text).replace("|", "\\|")


def escaped(text: str) -> str:
    """Text whose signs Markdown would read otherwise than a terminal, apart from `code`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<\[\]])", r"\\\1", part) for part in parts)


def written(page: str) -> str:
    """The page with its reference written anew."""
    lead, mark, _ = page.partition(MARK)
    assert mark, f"the page has lost its mark: {MARK}"
    return lead + mark + "\n".join(reference()).rstrip("\n") + "\n"


def test_the_page_has_every_command_and_option() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), f"write the page anew: see {__file__}"


def test_another_option_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text(encoding="utf-8")
    status = load_command("status", COMMANDS["status"][0])
    monkeypatch.setattr(status, "params", [*status.params, click.Option(["--new"], default=3, help="New | *here*.")])
    assert "| `--new INTEGER` | `3` | New \\| \\*here\\*. |" in written(page)


def test_every_option_says_what_it_does() -> None:
    options = [
        (name, each) for name, command, _ in commands() for each in command.params if isinstance(each, click.Option)
    ]
    assert len(options) > 100
    assert [f"{name} {each.opts[0]}" for name, each in options if not each.hidden and not each.help] == []


def test_the_page_has_every_environment_variable() -> None:
    sources = [path for room in ROOMS_WITHOUT_TESTS for path in room.rglob("*.py")]
    used = {name for path in sources for name in re.findall(r"\bSSMPROV_[A-Z_]+\b", path.read_text(encoding="utf-8"))}
    told = set(re.findall(r"^\| `(SSMPROV_\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert told == used - BETWEEN_OUR_PROCESSES


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
