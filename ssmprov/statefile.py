"""A file that holds one state and nothing else: what tuning makes, to be imported as the root of contexts.

A safetensors file whose metadata names the format, and the model by fingerprint, architecture and layout, all as a
checkpoint does. The state has read nothing that anybody could tell, so the root is opaque. Nothing in the file is
believed before it was held against the file's own size.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ssmprov import durable
from ssmprov.errors import BadRequest, Corrupt

FORMAT = "ssmprov.state.v1"
MAX_HEADER = 1 << 20
MAX_BYTES = 2 << 30
_U64 = struct.Struct("<Q")


class Origin(msgspec.Struct, frozen=True):
    """Which model a state is of. `tokens` counts what it has read, if it began with a context (else 0)."""

    fingerprint: str
    architecture: str
    layout: str
    tokens: int = 0


def is_state_file(path: Path) -> bool:
    """Whether a file begins like one; what it holds has not been looked at."""
    return _metadata(path) is not None


def write_state(path: Path, arrays: Mapping[str, NDArray[np.generic]], origin: Origin) -> None:
    """Write a state durably, whole or not at all."""
    metadata = {
        "format": FORMAT,
        "fingerprint": origin.fingerprint,
        "architecture": origin.architecture,
        "layout": origin.layout,
        "tokens": str(origin.tokens),
    }
    durable.replace(path, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata))


def read_state(path: Path) -> tuple[dict[str, NDArray[np.generic]], Origin]:
    """A state and the model it is of. Raises BadRequest for no such file, Corrupt for one that is damaged."""
    metadata = _metadata(path)
    if metadata is None:
        raise BadRequest(f"{path.name} is no file of a state")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadRequest(f"a state of {size} bytes is too large: {MAX_BYTES} at most")
    try:
        tokens = metadata.get("tokens", "")
        origin = Origin(metadata["fingerprint"], metadata["architecture"], metadata["layout"], int(tokens[:18], 10))
        arrays: dict[str, NDArray[np.generic]] = load(path.read_bytes())
    except (KeyError, ValueError, SafetensorError) as error:
        raise Corrupt(f"{path.name} is damaged: {error}") from None
    if origin.tokens < 0:
        raise Corrupt(f"{path.name} says that it has read {origin.tokens} tokens")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise Corrupt(f"{path.name}: {name} holds NaN")
    return arrays, origin


def _metadata(path: Path) -> dict[str, str] | None:
    with path.open("rb") as file:
        start = file.read(_U64.size)
        if len(start) < _U64.size:
            return None
        (length,) = _U64.unpack(start)
        if not 2 <= length <= MAX_HEADER:
            return None
        header = file.read(length)
    try:
        content = json.loads(header)
    except (ValueError, RecursionError):
        return None
    metadata = content.get("__metadata__") if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        return None
    return metadata if all(isinstance(value, str) for value in metadata.values()) else None
