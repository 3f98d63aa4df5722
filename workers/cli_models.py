"""`ssmprov models check`: try a model file before serving it, in a process that may crash on it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec

from ssmprov import configuration, rooms
from ssmprov.errors import Problem, SsmprovError, error_of
from ssmprov.formatting import size
from workers.check import Report
from workers.described import EMBEDDED
from workers.model_files import model_file, recognised

RUNTIMES = ("asm", "llama", "rwkv")
MAX_SLOTS = 128
USUAL_SLOTS = 8


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--runtime",
    type=click.Choice(RUNTIMES),
    help="Use this runtime instead of the one that fits.",
)
@click.option("--dtype", default="", metavar="DTYPE", help="The dtype, as in a model's table: fp32, bf16 or fp16.")
@click.option(
    "--scan", default="", metavar="SCAN", help="The scan of an ASM, if its file does not say: exact or chunked:128."
)
@click.option("--pos-mode", default="", metavar="MODE", help="The positions of an ASM: absolute or cyclic.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(path: Path, runtime: str | None, dtype: str, scan: str, pos_mode: str, as_json: bool) -> None:
    """Describe the model file PATH, load it, try it out, and print a [[model]] table to serve it.

    PATH may also be a directory with one model.
    """
    name = runtime or ""
    if path.name in EMBEDDED:
        name = name or EMBEDDED[path.name]
    elif name:
        path = model_file(path.absolute(), name)
    else:
        path, kind = recognised(path.absolute())
        name = kind.runtimes[0]
    home = configuration.home_of()
    cache = str(home / ".cache") if home.is_dir() else ""
    options = {key: value for key, value in (("scan", scan), ("pos_mode", pos_mode)) if value}
    pairs = [f"{key}={value}" for key, value in options.items()]
    report = run(rooms.command("workers.check", str(path), name, dtype, cache, *pairs), path)
    table = toml_table(report, path, {"dtype": dtype, **options})
    if as_json:
        click.echo(json.dumps({"path": str(path), **msgspec.to_builtins(report), "toml": table}, indent=2))
        return
    rows = list(lines(report, path))
    width = max(len(key) for key, _ in rows)
    for key, text in rows:
        click.echo(f"{key.ljust(width)}  {''.join(c if c.isprintable() else '?' for c in text)}")
    click.echo(f"\n{table}", nl=False)


def run(command: Sequence[str], path: Path) -> Report:
    """The report of a child process. Raises its error, or an error that says how it died."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=Report)
        if done.returncode == 1:
            raise error_of(msgspec.json.decode(done.stdout, type=Problem))
    except msgspec.DecodeError:
        pass
    error = SsmprovError(f"{path}: {_death(done.returncode)}{_last_line(done.stderr)}")
    error.remote_traceback = done.stderr.decode(errors="replace")
    raise error


def _death(status: int) -> str:
    if status >= 0:
        return f"the check ended with exit status {status}"
    name = signal.Signals(-status).name
    if name == "SIGKILL":
        return "the check was killed (SIGKILL), most likely because the memory ran out"
    if name == "SIGILL":
        return "a library crashed on it (SIGILL): it was built for another processor"
    return f"a library crashed on it ({name}): the file is damaged, or of an unknown kind"


def _last_line(stderr: bytes) -> str:
    """The last line that was printed, as the end of a sentence."""
    said = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return f": {said[-1][:300]}" if said else ""


# -- what is shown


def lines(report: Report, path: Path) -> Iterator[tuple[str, str]]:
    """The report for people: for each line its subject and its text."""
    family = "" if report.family == report.architecture else f", of the family {report.family}"
    yield "model", f"{report.name}: {report.architecture}{family}, for the {report.runtime} runtime"
    yield "file", f"{path}, {size(report.file_bytes)}"
    yield "parameters", f"{report.parameters:,} as {report.quantization}"
    yield "shape", f"{report.layers} layers, embedding {report.embedding}"
    yield "tokenizer", f"{report.tokenizer or 'unnamed'}, vocabulary {report.vocabulary}"
    if report.text_exact:
        yield "text", "the tokenizer reproduces it exactly"
    else:
        yield "text", "the tokenizer does NOT reproduce it exactly; prompts like these will be rejected:"
        yield from (("", json.dumps(lost, ensure_ascii=False)) for lost in report.text_lost)
    yield "state", _state(report)
    yield "fingerprint", report.fingerprint
    yield "settings", report.settings
    yield "memory", _memory(report)
    yield "loads", f"in {report.load_s:.2f} s; computes in {report.dtype}"
    yield "speed", f"{report.prefill_per_s:.1f} tokens/s read at once, {report.decode_per_s:.1f} tokens/s one by one"
    yield (
        "restores",
        "a saved state continues bit for bit" if report.restores else "a saved state does NOT continue bit for bit",
    )


def _state(report: Report) -> str:
    if report.context_tokens is None:
        return f"{size(report.state_bytes)} for each context, however long"
    if not report.token_bytes:
        return f"{size(report.state_bytes)} for each context of at most {report.context_tokens} tokens"
    return (
        f"{size(report.token_bytes)} for each token, {size(report.state_bytes)} for a context of at most "
        f"{report.context_tokens} tokens (n_ctx = {report.n_ctx})"
    )


def _memory(report: Report) -> str:
    used = "" if report.memory_bytes is None else f"{size(report.memory_bytes)} taken with one slot, "
    if report.free_bytes is None or report.slots_that_fit is None:
        return f"{used}this system does not say how much is free"
    fit = report.slots_that_fit
    room = f"{MAX_SLOTS} slots or more" if fit >= MAX_SLOTS else f"{fit} slot{'s' if fit > 1 else ''}"
    return f"{used}of {size(report.free_bytes)} free: one worker has room for {room}"


def toml_table(report: Report, path: Path, options: Mapping[str, str]) -> str:
    """A `[[model]]` table to serve the file with, including the options that were given."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", report.name).strip("-._")[:64].rstrip("-._").lower() or report.family
    table: dict[str, str | int] = {"name": name, "runtime": report.runtime, "path": _path(path)}
    table["settings"] = report.settings
    table["workers"] = 1
    table["slots"] = min(USUAL_SLOTS, report.slots_that_fit or USUAL_SLOTS)
    table |= {key: value for key, value in options.items() if value}
    if report.n_ctx is not None:
        table["n_ctx"] = report.n_ctx
    return "[[model]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in table.items())


def _path(path: Path) -> str:
    return path.name if path.name in EMBEDDED else os.fspath(path)


def _toml(value: str | int) -> str:
    """A value in TOML. Its strings are JSON strings, except for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
