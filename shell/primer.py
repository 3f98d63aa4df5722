"""`ssmprov primer`: a transcript that introduces the system and its source code to a model."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath

import click
from click.shell_completion import CompletionItem

from shell.options import json_option
from shell.tables import echo_json, echo_table
from ssmprov import durable
from ssmprov.errors import BadRequest, nearest
from ssmprov.rooms import BELOW, PACKAGE, ROOT
from ssmprov.transcript import half_step, turn

PARTS = (
    "ssmprov", "config", "clients", "transcripts", "sandbox", "shell", "broker", "workers", "bridge_tcp", "composer",
    "models", "training", "specialists", "research", "demo", "benchmarks",
)  # fmt: skip
"""The packages of the application, the most informative first. Only installed ones can be chosen."""

DEFAULT_PARTS = ("ssmprov", "config")

PROSE, PYTHON, DATA = 2.8, 3.0, 2.0
BYTES_PER_TOKEN = {".py": PYTHON, ".md": PROSE, ".txt": PROSE, ".toml": PROSE, ".service": PROSE, ".json": DATA}
"""Which files count as source, and a low estimate of bytes per token: the vocabularies of RWKV World and SmolLM2 take
2.9 to 3.7 bytes of our text per token, and 2.1 bytes of JSON."""

LISTING = (
    "The source of ssmprov follows, one file per turn. A turn holds only its file, so the paths are listed here, "
    "each after the number of its turn. `GET_FILE 2 NAME` writes the first one to a file, byte for byte."
)
CLOSING = (
    "These were the files, exactly as they run here. From now on, read what you are asked, look things up in the turns "
    "above, and answer in the role that the header gives you."
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a part. `path` is relative to the folder that holds the parts."""

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
    help=f"Include the source of this part, such as broker; repeatable (default: {' and '.join(DEFAULT_PARTS)}).",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(1), metavar="N",
    help="Leave out files that would make it longer than N tokens; files are added in the order of --list.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-", metavar="FILE",
    help="Write to FILE (default: standard output).",
)  # fmt: skip
@click.option("--list", "listing", is_flag=True, help="List the available parts, or the files of each --part.")
@json_option
def primer(chosen: tuple[str, ...], max_tokens: int | None, out: Path, listing: bool, as_json: bool) -> None:
    """Write a transcript that introduces a model to this system: roles, tools, rules, and its source as FILE turns.

    Its last turn is left open. The server closes it, so the model only reads the text and writes nothing:

    \b
    ssmprov primer | ssmprov pipe --save primed

    Token counts are estimates: 3 bytes of Python, 2.8 of prose or 2 of data per token. rwkv7-mini reads bytes, so it
    needs one token per byte.
    """
    if as_json and not listing:
        raise click.UsageError("--json can only be used with --list")
    sources = sources_of(chosen or (() if listing else DEFAULT_PARTS))
    if listing:
        show_list(sources, as_json)
        return
    kept, left_out = fitting(sources, max_tokens)
    text = transcript(kept).encode()
    if str(out) == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        durable.replace(out, text)
    summary(kept, left_out, len(text))


# -- the files


def folder(part: str) -> Path:
    """The folder of a part."""
    return PACKAGE if part == PACKAGE.name else ROOT / part


def parts() -> list[str]:
    return [part for part in PARTS if folder(part).is_dir()]


def sources_of(chosen: Sequence[str]) -> list[Source]:
    """The files of the parts, in order. Within a part, files in higher folders come first."""
    there = parts()
    for part in chosen:
        if part not in there:
            raise BadRequest(f"there is no part {part!r}{nearest(part, there)}")
    found: list[Source] = []
    for part in dict.fromkeys(chosen):
        top = folder(part).parent
        files = [path.relative_to(top) for path in folder(part).rglob("*") if path.suffix in BYTES_PER_TOKEN]
        for path in sorted(files, key=lambda path: (len(path.parts), path)):
            if not any(word.startswith((".", "__pycache__", BELOW)) for word in path.parts):
                found.append(Source(PurePosixPath(path), (top / path).read_bytes().decode("utf-8")))
    return found


# -- the transcript


def introduction() -> str:
    return (resources.files("shell") / "texts" / "introduction.md").read_bytes().decode("utf-8").rstrip("\n")


def transcript(sources: Sequence[Source]) -> str:
    """The introduction, the list of files, the files, and a last turn that is open.

    A FILE turn holds only the file, so that GET_FILE writes it byte for byte. Its path is in the list.
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


# -- the length


def tokens(text: str, bytes_per_token: float) -> int:
    return math.ceil(len(text.encode()) / bytes_per_token)


def frame(sources: Sequence[Source]) -> int:
    """Tokens of everything except the files."""
    texts = [turn(0, "CONTEXT", introduction()), half_step(999, "CONTEXT", CLOSING)]
    if sources:
        texts.append(turn(1, "CONTEXT", LISTING))
    return sum(tokens(text, PROSE) for text in texts)


def estimate(sources: Sequence[Source]) -> int:
    """Tokens of the whole transcript."""
    return frame(sources) + sum(source.tokens + source.listed for source in sources)


def fitting(sources: Sequence[Source], max_tokens: int | None) -> tuple[list[Source], list[Source]]:
    """The files that fit, and those that do not. Each file is taken if all of it still fits.

    Raises BadRequest if the introduction alone is too long.
    """
    if max_tokens is None:
        return list(sources), []
    if (least := frame(())) > max_tokens:
        raise BadRequest(f"--max-tokens {max_tokens} is too small: the introduction alone has about {least} tokens")
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


# -- output


def show_list(sources: Sequence[Source], as_json: bool) -> None:
    """Print the given files, or all parts."""
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
        click.echo(f"primer: these files did not fit into --max-tokens: {_named(left_out)}", err=True)


def _named(sources: Sequence[Source]) -> str:
    return ", ".join(f"{source.path} ({source.tokens})" for source in sources)
