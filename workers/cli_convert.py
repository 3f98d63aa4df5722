"""`ssmprov convert`: an RWKV-7 model as a GGUF file, which the llama runtime serves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from ssmprov.causes import explained
from ssmprov.durable import Replacement
from ssmprov.errors import BadRequest, Conflict, NotFound, Unsupported

EMBEDDED = "@mini"


@click.command()
@click.argument("model")
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "precision",
    type=click.Choice(["q8_0", "f16", "f32"]),
    default="q8_0",
    show_default=True,
    help="The type of the matrices: 8.5, 16 or 32 bits per weight.",
)
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def convert(model: str, out: Path, precision: str, force: bool, as_json: bool) -> None:
    """Write the RWKV-7 weights MODEL (.pth, .safetensors, or @mini for the model that ships with ssmprov) as OUT.gguf.

    OUT appears complete or not at all. The printed fingerprint names the model in its checkpoints.
    """
    if out.suffix != ".gguf":
        raise click.BadParameter(f"{str(out)!r} must end in .gguf", param_hint="OUT")
    _check_places(model, out, force)
    try:
        from models import gguf, mini, rwkv7
        from models.gguf.convert import Precision
        from models.gguf.convert import convert as write
    except ModuleNotFoundError as error:
        raise _missing(error) from None
    source = mini.path() if model == EMBEDDED else Path(model)
    try:
        with Replacement(out) as new, _bar(out.name) as progress:
            write(source, new.part, cast(Precision, precision), progress=progress)
            fingerprint, size = gguf.fingerprint(new.part), new.part.stat().st_size
    except (rwkv7.WeightsError, gguf.GgufError) as error:
        raise BadRequest(str(error)) from None
    except OSError as error:
        raise explained(error, f"{out} was not written", out) from None
    if as_json:
        done = {"path": str(out), "type": precision, "bytes": size, "fingerprint": fingerprint}
        click.echo(json.dumps(done))
    else:
        click.echo(f"{out}: {size / 1e6:.1f} MB, {precision}, fingerprint {fingerprint}")


def _check_places(model: str, out: Path, force: bool) -> None:
    """Check the paths before anything heavy is loaded."""
    if model != EMBEDDED and not Path(model).exists():
        raise NotFound(f"there is no file {model}")
    if not out.absolute().parent.is_dir():
        raise NotFound(f"there is no directory {out.absolute().parent}")
    if out.is_dir():
        raise BadRequest(f"{out} is a directory")
    if out.exists() and not force:
        raise Conflict(f"{out} exists: replace it with --force")


def _missing(error: ModuleNotFoundError) -> Unsupported:
    remedy = "run `make llama`, or install ssmprov[llama]" if error.name == "gguf" else "install ssmprov[rwkv]"
    return Unsupported(f"`ssmprov convert` needs the Python module {error.name!r}, which is not installed: {remedy}")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar of the bytes written, if stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(desc=name, unit="B", unit_scale=True, leave=False, disable=None, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
