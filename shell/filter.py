"""`ssmprov filter`: turns a context into a program for pipelines, such as `cat x | NAME | OTHER`."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from shell import turns
from shell.options import (
    assignments,
    complete_context,
    complete_set,
    connect,
    json_option,
    model_option,
    new_names,
    usual_model,
)
from shell.pipe import read_text, templated, without_newline
from shell.tables import echo_json, echo_table
from shell.terminal import Output, notice
from shell.turns import TurnRequest
from ssmprov import durable, rooms
from ssmprov.causes import expanded
from ssmprov.configuration import home_of, private_directory
from ssmprov.errors import BadRequest, NotFound
from ssmprov.names import split_model
from ssmprov.transcript import check_role, turns_of
from transcripts.own import Own
from transcripts.record import Record

MARK = "# ssmprov filter: "
MAX_LAUNCHER = 4096

SETTINGS_HELP = "The sampling set (default: the one with the context's name, or the model's)."
LIVE_HELP = "Let the context remember each use, or keep it unchanged."


@click.group("filter")
def filters() -> None:
    """Turn a context into a program for shell pipelines.

    \b
    ssmprov filter make coder --model rwkv7-mini --in USER --out INTERFACE
    cat question.txt | coder
    """


@filters.command()
@click.argument("name", shell_complete=complete_context)
@model_option
@click.option(
    "--in", "role", default="USER", show_default=True, metavar="ROLE", help="The role of the text that is piped in."
)
@click.option(
    "--out", "reply_role", default="INTERFACE", show_default=True, metavar="ROLE", help="The role of the reply."
)
@click.option(
    "--settings",
    default="",
    metavar="SET",
    shell_complete=complete_set,
    help=SETTINGS_HELP,
)
@click.option("--live/--static", default=True, help=LIVE_HELP)
@click.option(
    "--as",
    "program",
    default="",
    metavar="FILE",
    help="The program's name (default: the last part of the context's name).",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write it to (default: ~/bin).",
)
@click.option("--force", is_flag=True, help="Replace a file even if it is not a filter.")
def make(
    name: str,
    model: str,
    role: str,
    reply_role: str,
    settings: str,
    live: bool,
    program: str,
    directory: Path | None,
    force: bool,
) -> None:
    """Write a program for the context NAME. It sends its standard input to the context and prints the reply."""
    new_names(name)
    for word in (role, reply_role):
        check_role(word)
    written, context = split_model(name)
    program = program or context.rpartition("/")[2]
    if "/" in program or program.startswith((".", "-")):
        raise click.UsageError(
            f"{program!r} cannot be used as a program name: it must not contain / or begin with . or -"
        )
    words = [context, "--model", written or model, "--in", role, "--out", reply_role, "--settings", settings]
    words = [context, *(word for pair in zip(words[1::2], words[2::2], strict=True) if pair[1] for word in pair)]
    words.append("--live" if live else "--static")
    directory = directory or expanded("~/bin")
    path = directory / program
    if path.exists() and _marked(path) is None and not force:
        raise BadRequest(
            f"{path} exists and is not a filter: choose another name with --as, or replace it with --force"
        )
    if other := _namesake(program, path):
        notice(f"{program} is also {other}: if that is not what you want, choose another name with --as")
    directory.mkdir(parents=True, exist_ok=True)
    line = shlex.join(rooms.command("ssmprov", "--home", str(home_of()), "filter", "run", *words))
    durable.replace(path, f'#!/bin/sh\n{MARK}{shlex.join(words)}\nexec {line} "$@"\n'.encode())
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    on_path = str(directory) in os.environ.get("PATH", "").split(os.pathsep)
    click.echo(f"{path}{'' if on_path else f'   ({directory} is not on your PATH)'}", err=True)


@filters.command("ls")
@click.option("--dir", "directory", type=click.Path(path_type=Path, file_okay=False), help="Look only in this folder.")
@json_option
def list_filters(directory: Path | None, as_json: bool) -> None:
    """List the filters in ~/bin and on the PATH."""
    folders = [directory] if directory else [expanded("~/bin"), *_path()]
    found = {str(path): words for folder in dict.fromkeys(folders) for path, words in _filters(folder)}
    if as_json:
        echo_json([{"file": file, "arguments": words} for file, words in found.items()])
    else:
        echo_table(("FILTER", "ARGUMENTS"), [(file, shlex.join(words)) for file, words in found.items()])


@filters.command()
@click.argument("name", shell_complete=complete_context)
@model_option
@click.option(
    "--in", "role", default="USER", show_default=True, metavar="ROLE", help="The role of the text that is piped in."
)
@click.option(
    "--out", "reply_role", default="INTERFACE", show_default=True, metavar="ROLE", help="The role of the reply."
)
@click.option("--settings", default="", metavar="SET", shell_complete=complete_set, help=SETTINGS_HELP)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="One setting, such as temp=0.5.")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="The random seed.")
@click.option("--max-tokens", type=click.IntRange(0), help="Generate at most this many tokens; 0 only reads the text.")
@click.option("--live/--static", default=True, help=LIVE_HELP)
@click.option("--stream/--no-stream", default=None, help="Print the reply as it arrives (the default on a terminal).")
@click.option("--fence", is_flag=True, help="Print the closing fence as well.")
@click.pass_context
def run(
    ctx: click.Context,
    name: str,
    model: str,
    role: str,
    reply_role: str,
    settings: str,
    pairs: tuple[str, ...],
    seed: int | None,
    max_tokens: int | None,
    live: bool,
    stream: bool | None,
    fence: bool,
) -> None:
    """Run the filter NAME once. The programs that `filter make` writes run this command.

    A live filter keeps the transcript of its context below .filters/MODEL/NAME in the working directory.
    """
    for word in (role, reply_role):
        check_role(word)
    written, context = split_model(name)
    assignments(pairs)
    text = without_newline(read_text())
    if not text:
        return
    model, settings, highest = _prepare(written or model or usual_model(), context, settings, live)
    request = TurnRequest(
        model=model,
        context=context,
        save=context if live else "",
        settings=settings,
        pairs=pairs,
        seed=seed,
        max_tokens=max_tokens,
    )
    output = Output(live=sys.stdout.isatty() if stream is None else stream, bare=not fence)
    if live:
        folder = private_directory(home_of() / ".filters")
        place = Record(folder / model / context)
        place.directory.mkdir(parents=True, exist_ok=True)
        done = turns.recorded(
            place,
            request,
            lambda number: (templated(text, number, role, reply_role), number + 1),
            output,
            own=Own(model, context),
        )
    else:
        done = turns.exchange(request, templated(text, highest + 1, role, reply_role), output, live=False)
    output.end()
    turns.tell_if_cut(done, request)
    ctx.exit(130 if done.stop == "cancelled" else 0)


def _prepare(model: str, context: str, settings: str, live: bool) -> tuple[str, str, int]:
    """The model, the sampling set, and the highest turn that the context has read, unless its transcript tells.

    Raises NotFound.
    """
    with connect() as client:
        try:
            row = client.show(context, model=model).row
        except NotFound as error:
            if model and all(card.name != model for card in client.models()):
                raise
            raise NotFound(
                f"the filter {context} has no context yet: prime it (`ssmprov pipe --save {context} < TEXT`) or fork "
                f"another context (`ssmprov ckpt fork OTHER {context}`)"
            ) from error
        if not settings and context in client.settings_ls(model=row.model).names:
            settings = context
        text = "" if row.opaque or live else client.text(context, model=row.model)
    return row.model, settings, max((turn.number for turn in turns_of(text)), default=0)


def _namesake(program: str, path: Path) -> str:
    """What else a shell runs under that name: a word of its own, or a program that is not a filter; '' if nothing."""
    if shell := shutil.which("bash"):
        asked = subprocess.run(
            [shell, "-c", 'type -t -- "$1"', "bash", program], capture_output=True, text=True, check=False
        )
        if (kind := asked.stdout.strip()) in ("keyword", "builtin"):
            return f"a {kind} of the shell, which runs instead"
    for other in (folder / program for folder in _path()):
        if (
            other.is_file()
            and os.access(other, os.X_OK)
            and other.resolve() != path.resolve()
            and _marked(other) is None
        ):
            return f"the program {other}, and your PATH decides which of them runs"
    return ""


def _path() -> list[Path]:
    return [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]


def _filters(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if (words := _marked(path)) is not None:
                yield path, words


def _marked(path: Path) -> list[str] | None:
    """The arguments in a filter's second line, or None if the file is not a filter."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_LAUNCHER:
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        return shlex.split(lines[1].removeprefix(MARK)) if len(lines) > 1 and lines[1].startswith(MARK) else None
    except (OSError, ValueError):
        return None
