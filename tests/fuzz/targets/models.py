"""Model files, as far as their headers are read here: GGUF, and RWKV-7 weights in both of their formats."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import gguf_files
import torch

from fuzz.engine import Target
from fuzz.mutate import speaking
from fuzz.targets.files import mutate_tensors, scratch
from models import rwkv7
from models.gguf import GgufError, describe, fingerprint
from models.gguf.header import read_header
from models.rwkv7 import WeightsError
from models.rwkv7.config import check_shapes

TINY = rwkv7.Config(layers=1, channels=4, head_size=2, vocabulary=5, ffn=4, rank_w=1, rank_a=1, rank_v=1, rank_g=1)


def header(data: bytes) -> None:
    """A model is described, or refused with what is wrong; no length in it is believed."""
    with scratch() as folder:
        path = folder / "model.gguf"
        path.write_bytes(data)
        found = read_header(path)
        for tensor in found.tensors:
            assert 0 <= tensor.start <= tensor.start + tensor.nbytes <= len(data)
        describe(path)
        fingerprint(path)


@cache
def gguf_seeds() -> list[bytes]:
    with scratch() as folder:
        found = [gguf_files.write(folder / "small.gguf").read_bytes()]
        return found + [path.read_bytes() for path in gguf_files.write_parts(folder)]


def _weights(data: bytes, suffix: str) -> None:
    """Tensors are read and fit one model, or the file is refused."""
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of odd files
        path = folder / f"model{suffix}"
        path.write_bytes(data)
        tensors = rwkv7.read_tensors(path)
        check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, str(path))


def pth(data: bytes) -> None:
    _weights(data, ".pth")


def safetensors(data: bytes) -> None:
    _weights(data, ".safetensors")


@cache
def _saved(suffix: str) -> bytes:
    with scratch() as folder:
        path: Path = folder / f"model{suffix}"
        rwkv7.save(rwkv7.random_tensors(TINY, seed=1), path)
        return path.read_bytes()


@cache
def pth_seeds() -> list[bytes]:
    """A model, and a file that is none but so small that most mutations hit where it matters."""
    with scratch() as folder:
        small = {"emb.weight": torch.zeros(2, 2), "x": torch.ones(3, dtype=torch.bfloat16)}
        torch.save(small, folder / "zip")
        return [_saved(".pth"), (folder / "zip").read_bytes()]


TARGETS = [
    Target(
        "gguf",
        header,
        gguf_seeds,
        (GgufError,),
        speaking(
            "GGUF", "general.alignment", "general.architecture", "split.count", b"\x09\0\0\0\x09\0\0\0", b"\x08\0\0\0"
        ),
        runs=2500,
    ),
    Target(
        "pth",
        pth,
        pth_seeds,
        (WeightsError,),
        speaking(
            "ctorch\nFloatStorage\n",
            "cposix\nsystem\n",
            "ctorch._utils\n_rebuild_tensor_v2\n",
            "PK\x05\x06",
            "(dp0\n",
            "R.",
        ),
        runs=400,
    ),
    Target("safetensors", safetensors, lambda: [_saved(".safetensors")], (WeightsError,), mutate_tensors, runs=1000),
]
