"""The file that a model's table or a command means, recognised before any library opens it."""

from __future__ import annotations

from pathlib import Path

from models.foreign import Kind, chosen, identify
from ssmprov.errors import BadRequest

NAMES = {
    "rwkv7": "an RWKV-7 model",
    "rwkv7_hf": "an RWKV-7 model",
    "asm": "an Addressed State Model",
    "gguf": "a GGUF file",
}

PASSED = frozenset(
    ("state_file", "pickle", "unknown", "damaged", "cut", "empty", "missing", "not_a_file", "directory", "other_model")
)
"""Kinds that say nothing against a context: their own reader finds what is wrong."""


def recognised(path: Path) -> tuple[Path, Kind]:
    """The file that a path means (in a directory its only model), and what it is.

    Raises BadRequest, whose `details` have the `kind`, for anything that cannot be served.
    """
    try:
        path = chosen(path)
        kind = identify(path)
    except OSError as error:
        raise BadRequest(f"{path}: the file cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise BadRequest(f"{path}: {error}", kind="several") from None
    if kind.problem:
        raise BadRequest(f"{path}: {kind.problem}", kind=kind.code)
    return path, kind


def refuse_as_context(path: Path) -> None:
    """Raise BadRequest for a file that is recognised as something else than a context or a state of ours.

    Whatever is not recognised passes: its own reader says what is wrong with it.
    """
    try:
        kind = identify(path)
    except OSError:
        return
    if kind.runtimes:
        raise BadRequest(
            f"this is {NAMES[kind.code]}, not a context: `ssmprov models check FILE` shows how to serve it. `ckpt "
            "import` takes what `ckpt export` wrote, a state file, and the kv.pkl of an old runner",
            kind=kind.code,
        )
    if kind.code not in PASSED:
        raise BadRequest(kind.problem, kind=kind.code)


def model_file(path: Path, runtime: str) -> Path:
    """The file that a path means, for this runtime. Raises BadRequest as `recognised`, and for another runtime's."""
    path, kind = recognised(path)
    if runtime not in kind.runtimes:
        raise BadRequest(
            f"{path} is {NAMES[kind.code]}, which the runtime {runtime} cannot serve: write runtime = "
            f'"{kind.runtimes[0]}" in its table',
            kind=kind.code,
        )
    return path
