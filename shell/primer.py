"""`ssmprov primer`: the system's own introduction and source as a transcript, for a model to read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import click
from click.shell_completion import CompletionItem

import ssmprov
from shell.options import json_option
from shell.tables import echo_json, echo_table
from ssmprov.errors import BadRequest, nearest
from ssmprov.transcript import half_step, turn

PARTS = (
    "ssmprov", "config", "clients", "transcripts", "sandbox", "shell", "broker", "workers", "bridge_tcp", "composer",
    "models", "training", "specialists", "research", "demo", "benchmarks",
)  # fmt: skip
"""The packages of the application, the most telling first. Those that are not installed are no parts."""

DEFAULT_PARTS = ("ssmprov", "config")

PROSE, PYTHON, DATA = 2.8, 3.0, 2.0
BYTES_PER_TOKEN = {".py": PYTHON, ".md": PROSE, ".txt": PROSE, ".toml": PROSE, ".service": PROSE, ".json": DATA}
"""What counts as source, and how many bytes a token has at least, on the whole: the vocabularies of RWKV World and
SmolLM2 take 2.9 to 3.7 bytes of ours a token, and 2.1 of JSON."""

LISTING = (
    "The source of ssmprov follows, one file a turn. A turn holds its file and nothing else, so its path stands here, "
    "behind the number of its turn. `GET_FILE 2 NAME` writes the first one to a file, byte for byte."
)
CLOSING = (
    "These were the files. They are what runs here, as it stands on disk. From here on the transcript is work: read "
    "what you are asked, look things up in the turns above, and answer in the role of the header that you are given."
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a part, by its path from the folder in which the parts lie."""

    path: PurePosixPath
    content: str

    @property
    def bytes(self) -> int:
        return len(self.content.encode())

    @property
    def tokens(self) -> int:
        return tokens(turn(999, "FILE", self.content), BYTES_PER_TOKEN[self.path.suffix])

    @property
    def listed(self) -> int:
        """Tokens of its line in the list of files."""
        return tokens(f"999  {self.path}\n", DATA)


def complete_part(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(part) for part in parts() if part.startswith(incomplete)]


@click.command()
@click.option(
    "--part", "chosen", multiple=True, metavar="PART", shell_complete=complete_part,
    help=f"Put in the source of this part, such as broker; may be repeated (else {' and '.join(DEFAULT_PARTS)}).",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N",
    help="Leave out files that would make it longer, in the order of --list.",
)  # fmt: skip
@click.option(
    "--out", type=click.File("wb", lazy=True, atomic=True), default="-", metavar="FILE",
    help="Write to FILE (else to standard output).",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="Show what parts there are, or the files of each --part.")
@json_option
def primer(chosen: tuple[str, ...], max_tokens: int | None, out: BinaryIO, listing: bool, as_json: bool) -> None:
    """Write a transcript that introduces a model to this system: roles, tools, rules, and its source as FILE turns.

    It ends within its last turn, whose fence the server completes, so that a model only reads it:

    \b
    ssmprov primer | ssmprov pipe --save primed

    Tokens are an estimate: 3 bytes of Python, 2.8 of prose and 2 of data each. rwkv7-mini, which reads bytes, takes one
    for each byte.
    """
    if as_json and not listing:
        raise click.UsageError("--json goes with --list")
    sources = sources_of(chosen or (() if listing else DEFAULT_PARTS))
    if listing:
        show_list(sources, as_json)
        return
    kept, left_out = fitting(sources, max_tokens)
    text = transcript(kept)
    out.write(text.encode())
    out.flush()
    summary(kept, left_out, len(text.encode()))


# -- what there is


def root() -> Path:
    """The folder in which the packages lie: a checkout, or an environment's site-packages."""
    return Path(ssmprov.__file__).parents[1]


def parts() -> list[str]:
    return [part for part in PARTS if (root() / part / "__init__.py").is_file()]


def sources_of(chosen: Sequence[str]) -> list[Source]:
    """The files of the parts, in their order; within a part those that lie highest first."""
    there = parts()
    for part in chosen:
        if part not in there:
            raise BadRequest(f"there is no part {part!r}{nearest(part, there)}")
    found: list[Source] = []
    for part in dict.fromkeys(chosen):
        files = [path.relative_to(root()) for path in (root() / part).rglob("*") if path.suffix in BYTES_PER_TOKEN]
        for path in sorted(files, key=lambda path: (len(path.parts), path)):
            if not any(word.startswith((".", "__pycache__")) for word in path.parts):
                found.append(Source(PurePosixPath(path), (root() / path).read_bytes().decode("utf-8")))
    return found


# -- what is written


def introduction() -> str:
    return (resources.files("shell") / "texts" / "introduction.md").read_bytes().decode("utf-8").rstrip("\n")


def transcript(sources: Sequence[Source]) -> str:
    """Introduction, list of files, files, and a last turn that is open.

    A FILE turn holds nothing but the file, so that GET_FILE writes it byte for byte; its path stands in the list.
    """
    written = [turn(0, "CONTEXT", introduction())]
    if sources:
        names = "\n".join(f"{number}  {source.path}" for number, source in enumerate(sources, 2))
        written.append(turn(1, "CONTEXT", f"{LISTING}\n\n{names}"))
    written += [turn(number, "FILE", source.content) for number, source in enumerate(sources, 2)]
    written.append(half_step(last_turn(sources), "CONTEXT", CLOSING))
    return "".join(written)


def last_turn(sources: Sequence[Source]) -> int:
    return len(sources) + 2 if sources else 1


# -- what fits


def tokens(text: str, bytes_per_token: float) -> int:
    return math.ceil(len(text.encode()) / bytes_per_token)


def frame(sources: Sequence[Source]) -> int:
    """Tokens of what stands around the files."""
    texts = [turn(0, "CONTEXT", introduction()), half_step(999, "CONTEXT", CLOSING)]
    if sources:
        texts.append(turn(1, "CONTEXT", LISTING))
    return sum(tokens(text, PROSE) for text in texts)


def estimate(sources: Sequence[Source]) -> int:
    """Tokens of the whole transcript."""
    return frame(sources) + sum(source.tokens + source.listed for source in sources)


def fitting(sources: Sequence[Source], max_tokens: int | None) -> tuple[list[Source], list[Source]]:
    """The files that fit, and those that do not: each in its turn is taken if there is room for the whole of it.

    Raises BadRequest where the introduction alone is too long.
    """
    if max_tokens is None:
        return list(sources), []
    if (least := frame(())) > max_tokens:
        raise BadRequest(f"--max-tokens {max_tokens} is too little: the introduction alone has about {least} tokens")
    kept: list[Source] = []
    left_out: list[Source] = []
    room = max_tokens - frame(sources)
    for source in sources:
        if (taken := source.tokens + source.listed) <= room:
            kept.append(source)
            room -= taken
        else:
            left_out.append(source)
    return kept, left_out


# -- what is said


def show_list(sources: Sequence[Source], as_json: bool) -> None:
    """The files given, or all parts."""
    headers: tuple[str, ...] = ("FILE", "BYTES", "TOKENS")
    rows: list[tuple[str | int, ...]] = [(str(file.path), file.bytes, file.tokens) for file in sources]
    if not sources:
        headers = ("PART", "FILES", "BYTES", "TOKENS")
        for part in parts():
            files = sources_of([part])
            rows.append((part, len(files), sum(file.bytes for file in files), sum(file.tokens for file in files)))
    if as_json:
        echo_json([dict(zip(map(str.lower, headers), row, strict=True)) for row in rows])
    else:
        echo_table(headers, rows)


def summary(kept: Sequence[Source], left_out: Sequence[Source], size: int) -> None:
    count = f"{len(kept)} file{'s' if len(kept) != 1 else ''}"
    click.echo(
        f"primer: {count} in turns 0 to {last_turn(kept)}, {size} bytes, about {estimate(kept)} tokens "
        f"(an estimate from bytes)",
        err=True,
    )
    if left_out:
        click.echo(f"primer: left out, as too long for --max-tokens: {_named(left_out)}", err=True)


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(f"{source.path} ({source.tokens})" for source in sources)
