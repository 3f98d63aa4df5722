"""Reads weights files: official `.pth` (weights only, never pickled code) and `.safetensors`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from models.rwkv7.config import WeightsError
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
    """The named tensors of a file, unchanged."""
    path = Path(path)
    if path.suffix not in (".pth", ".safetensors"):
        raise WeightsError(f"{path}: the name of a weights file must end in .pth or .safetensors")
    if not path.is_file():
        raise WeightsError(f"{path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch and its unpickler check little, and may raise anything
        detail = (str(error).strip() or repr(error)).splitlines()[0]
        raise WeightsError(f"{path}: the file is damaged, cut short or in another format ({detail})") from error
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
