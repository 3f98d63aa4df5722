"""Reads weights: official `.pth` (weights only, never pickled code), `.safetensors`, and Hugging Face's layout."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.foreign import DAMAGED, OTHER, identify, shards
from models.rwkv7.config import WeightsError
from models.rwkv7.hf import is_hf, official
from models.rwkv7.layers import DTYPES, Dtype, Quantize, Weights, assemble


def load(
    path: Path | str,
    *,
    dtype: Dtype = "fp32",
    device: str | torch.device = "cpu",
    quantize: Quantize | None = None,
) -> Weights:
    """Loads a model from a file for inference. Raises WeightsError if a tensor is missing or has a wrong shape."""
    if dtype not in DTYPES:
        raise WeightsError(f"{path}: the dtype must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if quantize not in (None, "int8"):
        raise WeightsError(f"{path}: quantize must be 'int8' or None, not {quantize!r}")
    tensors = read_tensors(path)
    return assemble(tensors, dtype=dtype, device=device, quantize=quantize, source=str(path), inference=True)


def read_tensors(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a model by their official names. The path is a file, or a directory in Hugging Face's layout."""
    path = Path(path)
    try:
        kind = identify(path)
    except OSError as error:
        raise WeightsError(f"{path}: the file cannot be read ({error.strerror or error})") from error
    if kind.problem and kind is not OTHER:
        raise WeightsError(f"{path}: {kind.problem}")
    tensors: dict[str, Tensor] = {}
    for shard in shards(path):
        tensors |= _tensors(shard)
    return official(tensors, str(path)) if is_hf(tensors) else tensors


def _tensors(path: Path) -> dict[str, Tensor]:
    """The named tensors of one file, unchanged."""
    try:
        with path.open("rb") as file:
            zipped, legacy = (begin := file.read(2)) == b"PK", begin == b"\x80\x02"
        if not zipped and not legacy:
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:  # torch's own advice, weights_only=False, would run the code in it
        raise WeightsError(
            f"{path}: it holds more than tensors, perhaps code, which ssmprov never runs: get the model as .safetensors"
        ) from error
    except Exception as error:  # torch and its unpickler check little, and may raise anything
        raise WeightsError(f"{path}: {DAMAGED.problem}") from error
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise WeightsError(f"{path}: the file should hold a dict of tensors, found {type(found).__name__}")
    return found


def fingerprint(path: Path | str) -> str:
    """sha256 in hex over the tensors sorted by name: name, dtype, shape and bytes.

    Both file formats of the same tensors have the same fingerprint.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(read_tensors(path).items()):
        kind = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {kind} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
