"""State files: one state, and optionally weights. Tuning and training write them, and `ckpt import` reads them.

A state file is a safetensors file. Its metadata names the format and the model (fingerprint, architecture, layout), as
in a checkpoint. Nobody knows what the state has read, so the imported root is opaque. Sizes in the file are checked
against the file's own size before they are used.

Tensors named `weights.<name>` are weights that replace the model's own for this state. The metadata still names the
model that they were trained from. A file with weights may leave out the state: its contexts then start empty.
"""

from __future__ import annotations

import hashlib
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
_WEIGHTS = "weights"
_PREFIX = "weights."

Tensors = Mapping[str, NDArray[np.generic]]


class Origin(msgspec.Struct, frozen=True):
    """The model that a state belongs to. `tokens` counts what it has read if it began with a context, else 0."""

    fingerprint: str
    architecture: str
    layout: str
    tokens: int = 0


class State(msgspec.Struct, frozen=True):
    """The content of a file: a state's arrays, the model that it belongs to, and its weights ({} if there are none)."""

    arrays: dict[str, NDArray[np.generic]]
    origin: Origin
    weights: dict[str, NDArray[np.generic]]


def is_state_file(path: Path) -> bool:
    """Whether a file begins like a state file. Its content is not checked."""
    return _metadata(path) is not None


def write_state(path: Path, arrays: Tensors, origin: Origin, weights: Tensors | None = None) -> None:
    """Write a state durably, completely or not at all. Raises BadRequest for arrays with names of weights."""
    metadata = {
        "format": FORMAT,
        "fingerprint": origin.fingerprint,
        "architecture": origin.architecture,
        "layout": origin.layout,
        "tokens": str(origin.tokens),
    }
    for name in arrays:
        if name == _WEIGHTS or name.startswith(_PREFIX):
            raise BadRequest(f"an array of a state cannot be called {name}: that name is reserved for weights")
    named = {_PREFIX + name: tensor for name, tensor in (weights or {}).items()}
    durable.replace(path, save(_contiguous({**arrays, **named}), metadata))


def read_state(path: Path) -> State:
    """Read a state, the model that it belongs to, and its weights.

    Raises BadRequest if this is not a state file, and Corrupt if it is damaged or holds NaN or infinite weights.
    """
    metadata = _metadata(path)
    if metadata is None:
        raise BadRequest(f"{path.name} is not a state file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadRequest(f"this state file has {size} bytes: at most {MAX_BYTES} are allowed")
    try:
        tokens = metadata.get("tokens", "")
        origin = Origin(metadata["fingerprint"], metadata["architecture"], metadata["layout"], int(tokens[:18], 10))
        tensors: dict[str, NDArray[np.generic]] = load(path.read_bytes())
    except (KeyError, ValueError, SafetensorError) as error:
        raise Corrupt(f"{path.name} is damaged, or contains numbers of an unknown type: {error}") from None
    if origin.tokens < 0:
        raise Corrupt(f"{path.name} is damaged: its count of tokens is {origin.tokens}")
    if _WEIGHTS in tensors:
        raise Corrupt(f"{path.name}: a state cannot have an array called {_WEIGHTS}")
    state = State({}, origin, {})
    for name, array in tensors.items():
        floating = array.dtype.kind == "f"
        if floating and np.isnan(array).any():
            raise Corrupt(f"{path.name}: {name} contains NaN")
        if not name.startswith(_PREFIX):
            state.arrays[name] = array
            continue
        if floating and not np.isfinite(array).all():
            raise Corrupt(f"{path.name}: {name} contains infinite numbers")
        state.weights[name.removeprefix(_PREFIX)] = array
    return state


def weights_id(weights: Tensors) -> tuple[bytes, bytes]:
    """A file of weights as bytes, and their SHA-256 [32], by which a state names them. Equal weights hash equally."""
    data = save(_contiguous(dict(sorted(weights.items()))))
    return data, hashlib.sha256(data).digest()


def _contiguous(tensors: Tensors) -> dict[str, NDArray[np.generic]]:
    return {name: np.require(tensor, requirements="C") for name, tensor in tensors.items()}


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
