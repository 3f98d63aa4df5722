"""Addressed State Models: their files in both formats, and the states of their contexts."""

from __future__ import annotations

import json
import math
import struct
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import safetensors.numpy
import torch
from safetensors import SafetensorError

from fuzz.engine import Target
from fuzz.mutate import speaking
from fuzz.targets.files import mutate_tensors, scratch
from models import asm
from models.mini import ByteTokenizer
from ssmprov.errors import BadRequest, Corrupt
from workers.runtimes.asm import open_runtime
from workers.runtimes.asm.runtime import AsmRuntime
from workers.runtimes.base import Feed, Plan

TINY = {
    "vocab_size": 257, "embed_dim": 4, "num_layers": 1, "num_heads": 1, "num_slots": 2, "slotspace_dim": 2,
    "mlp_ratio": 1.0, "max_seq_len": 16,
}  # fmt: skip


def _model(data: bytes, suffix: str) -> None:
    """A file becomes a runtime that reads a token, or is refused."""
    with scratch() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of odd files
        path = folder / f"model{suffix}"
        path.write_bytes(data)
        runtime = open_runtime(Plan(path=path, slots=1))
        assert runtime.forward([Feed(0, [5])]).shape == (1, runtime.vocabulary)


def safetensors_file(data: bytes) -> None:
    _model(data, ".safetensors")


def torch_file(data: bytes) -> None:
    _model(data, ".pt")


@cache
def _saved(suffix: str, scan: str) -> bytes:
    with scratch() as folder:
        path: Path = folder / f"model{suffix}"
        torch.manual_seed(1)
        asm.save_checkpoint(asm.build_model_from_cfg(TINY | {"scan": scan}), path)
        return path.read_bytes()


def model_seeds() -> list[bytes]:
    return [_saved(".safetensors", "exact"), _saved(".safetensors", "chunked:4")]


def torch_seeds() -> list[bytes]:
    return [_saved(".pt", "exact")]


@cache
def _runtime(scan: str) -> AsmRuntime:
    torch.manual_seed(1)
    model = asm.build_model_from_cfg(TINY | {"scan": scan}).eval()
    return AsmRuntime(model, ByteTokenizer(), "0" * 64, "fp32", 2)


def state(data: bytes) -> None:
    """Arrays are refused, or are a context that reads on, and its neighbour never notices it."""
    try:
        arrays = safetensors.numpy.load(data)
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Corrupt(str(error)) from None  # as the store does
    for scan in ("exact", "chunked:4"):
        runtime = _runtime(scan)
        runtime.load(1, {})
        (alone,) = runtime.forward([Feed(1, [7])])
        runtime.load(1, {})
        try:
            runtime.load(0, arrays)
        except Corrupt:
            continue
        kept = runtime.save(0)
        assert all(np.array_equal(kept[name], array) for name, array in arrays.items())
        if arrays["t"][0] < TINY["max_seq_len"]:
            rows = runtime.forward([Feed(0, [5]), Feed(1, [7])])
            assert np.allclose(rows[1], alone, atol=1e-5)
        return
    raise Corrupt("a state of neither model")


def state_seeds() -> list[bytes]:
    found = []
    for scan in ("exact", "chunked:4"):
        runtime = _runtime(scan)
        for tokens in ([], [5], [5, 6, 7, 8, 9]):
            runtime.load(0, {})
            if tokens:
                runtime.forward([Feed(0, tokens)])
            found.append(safetensors.numpy.save(dict(runtime.save(0))))
    return found


ODD = (
    *(0, -1, 1, 2, 3, 2**31, 2**63, 2**80, 0.0, 0.5, -2.5, 1e-300, 1e308, float("nan"), float("inf"), float("-inf")),
    *(None, True, False, "", "exact", "chunked", "chunked:0", "chunked:99999999999999999999", "cyclic", "é", [], {}),
)


def mutate_model(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A file whose configuration has other values, or one that is changed anywhere."""
    size = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + size])
        config = json.loads(header["__metadata__"]["cfg"])
        names = sorted(config)
    except (ValueError, KeyError, TypeError):
        names = []
    if not names or random.random() < 0.4:
        return mutate_tensors(random, data, others)
    for _ in range(int(random.choice((1, 1, 2, 4)))):
        config[random.choice(names)] = random.choice(ODD)
    header["__metadata__"]["cfg"] = json.dumps(config)
    told = json.dumps(header).encode()
    return len(told).to_bytes(8, "little") + told + data[8 + size :]


def mutate_state(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Other numbers in a state, here and there, or other arrays."""
    size = 8 + int.from_bytes(data[:8], "little")
    if random.random() < 0.2 or len(data) < size + 4:
        return mutate_tensors(random, data, others)
    mutated = bytearray(data)
    for _ in range(int(random.choice((1, 1, 2, 8)))):
        at = size + 4 * int(random.random() * ((len(data) - size) // 4))
        number = random.choice((*ODD[:16], 7.0, -1e-30, 3.4e38))
        as_integer = isinstance(number, int) and abs(number) < 2**31 and random.random() < 0.5
        packed = struct.pack("<i", number) if as_integer else struct.pack("<f", np.clip(number, -3.4e38, 3.4e38))
        mutated[at : at + 4] = packed if math.isfinite(number) else struct.pack("<f", number)
    return bytes(mutated)


TARGETS = [
    Target("asm", safetensors_file, model_seeds, (BadRequest,), mutate_model, runs=300),
    Target(
        "asm.pt",
        torch_file,
        torch_seeds,
        (BadRequest,),
        speaking("cposix\nsystem\n", "PK\x05\x06", "slot_keys", "cfg", "model_state_dict", "R."),
        runs=150,
    ),
    Target("asm.state", state, state_seeds, (Corrupt,), mutate_state, runs=400),
]
