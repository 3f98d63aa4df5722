"""A file that holds one state and perhaps weights: what tuning and training make, to be imported as a context's root.

A safetensors file whose metadata names the format, and the model by fingerprint, architecture and layout, all as a
checkpoint does. The state has read nothing that anybody could tell, so the root is opaque. Nothing in the file is
believed before it was held against the file's own size.

Tensors named `weights.<name>` are the weights that the state is to be read with, instead of the model's own; the
metadata still names the model that they were trained from. With weights the state may be left out: then its contexts
begin with nothing read.
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
    """Which model a state is of. `tokens` counts what it has read, if it began with a context (else 0)."""

    fingerprint: str
    architecture: str
    layout: str
    tokens: int = 0


class State(msgspec.Struct, frozen=True):
    """What a file holds: a state's arrays, the model that it is of, and weights, {} where there are none."""

    arrays: dict[str, NDArray[np.generic]]
    origin: Origin
    weights: dict[str, NDArray[np.generic]]


def is_state_file(path: Path) -> bool:
    """Whether a file begins like one; what it holds has not been looked at."""
    return _metadata(path) is not None


def write_state(path: Path, arrays: Tensors, origin: Origin, weights: Tensors | None = None) -> None:
    """Write a state durably, whole or not at all. Raises BadRequest for arrays whose names belong to weights."""
    metadata = {
        "format": FORMAT,
        "fingerprint": origin.fingerprint,
        "architecture": origin.architecture,
        "layout": origin.layout,
        "tokens": str(origin.tokens),
    }
    for name in arrays:
        if name == _WEIGHTS or name.startswith(_PREFIX):
            raise BadRequest(f"an array of a state cannot be called {name}: such names belong to weights")
    named = {_PREFIX + name: tensor for name, tensor in (weights or {}).items()}
    durable.replace(path, save(_contiguous({**arrays, **named}), metadata))


def read_state(path: Path) -> State:
    """A state, the model it is of, and its weights.

    Raises BadRequest for no such file, Corrupt for one that is damaged or holds NaN, or infinite weights.
    """
    metadata = _metadata(path)
    if metadata is None:
        raise BadRequest(f"{path.name} is no file of a state")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise BadRequest(f"a state of {size} bytes is too large: {MAX_BYTES} at most")
    try:
        tokens = metadata.get("tokens", "")
        origin = Origin(metadata["fingerprint"], metadata["architecture"], metadata["layout"], int(tokens[:18], 10))
        tensors: dict[str, NDArray[np.generic]] = load(path.read_bytes())
    except (KeyError, ValueError, SafetensorError) as error:
        raise Corrupt(f"{path.name} is damaged, or holds numbers of an unknown type: {error}") from None
    if origin.tokens < 0:
        raise Corrupt(f"{path.name} says that it has read {origin.tokens} tokens")
    if _WEIGHTS in tensors:
        raise Corrupt(f"{path.name}: a state has no array called {_WEIGHTS}")
    state = State({}, origin, {})
    for name, array in tensors.items():
        floating = array.dtype.kind == "f"
        if floating and np.isnan(array).any():
            raise Corrupt(f"{path.name}: {name} holds NaN")
        if not name.startswith(_PREFIX):
            state.arrays[name] = array
            continue
        if floating and not np.isfinite(array).all():
            raise Corrupt(f"{path.name}: {name} holds infinite numbers")
        state.weights[name.removeprefix(_PREFIX)] = array
    return state


def weights_id(weights: Tensors) -> tuple[bytes, bytes]:
    """A file of weights, and the SHA-256 [32] of its bytes, by which a state names them: equal for equal weights."""
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
