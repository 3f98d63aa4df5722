"""A child process: hand a runtime so many damaged states, whose seals are right, as a forged file could bring them.

Ends with 0 when the library has survived them all; what it refused and took is one line of JSON.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
from llama_toys import open_toy, words

from ssmprov.errors import BadRequest, Corrupt, WrongModel
from workers.runtimes.base import Feed
from workers.runtimes.llama.runtime import LlamaRuntime

NUMBERS = [0, 1, 2, 3, 7, 8, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 0x7FC00000, 0xFF800000]
DECODE_EVERY = 50


def damaged(blob: bytes, rng: np.random.Generator) -> bytes:
    """A state with one to three faults, most of them where the library reads lengths and positions."""
    data = bytearray(blob)
    for _ in range(int(rng.integers(1, 4))):
        kind = int(rng.integers(9))
        near = int(rng.integers(min(len(data), 160))) if rng.random() < 0.7 else int(rng.integers(len(data)))
        if kind <= 2:
            at = min(near // 4 * 4, len(data) - 4)
            struct.pack_into("<I", data, at, NUMBERS[int(rng.integers(len(NUMBERS)))])
        elif kind == 3:
            data[near] = int(rng.integers(256))
        elif kind == 4:
            data[near] ^= 1 << int(rng.integers(8))
        elif kind == 5:
            del data[near:]
        elif kind == 6:
            del data[near : near + int(rng.integers(1, 64))]
        elif kind == 7:
            data[near:near] = rng.bytes(int(rng.integers(1, 64)))
        else:
            struct.pack_into("<f", data, max(8, min(near, len(data) - 4)), np.nan)
        if len(data) < 16:
            data += bytes(16)
    return bytes(data)


def sealed(runtime: LlamaRuntime, blob: bytes, position: int) -> dict[str, Any]:
    state = np.frombuffer(blob, np.uint8)
    gate = np.frombuffer(runtime._seal(state, position), np.uint8)
    return {"state": state, "position": np.array([position], np.int64), "gate": gate}


def main(folder: Path, kind: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    runtime = open_toy(folder, kind, 3, n_ctx=256, dtype="fp16" if seed % 2 else "fp32")
    tokens = words(runtime, rng, 9)
    runtime.forward([Feed(0, tokens)])
    good = runtime.save(0)
    expected = runtime.forward([Feed(0, tokens[:1])])
    taken = refused = 0
    for number in range(count):
        position = 9 if rng.random() < 0.8 else int(rng.choice([-1, 0, 1, 2, 8, 10, 2**31 - 1, 2**31, 2**40]))
        try:
            runtime.load(1, sealed(runtime, damaged(good["state"].tobytes(), rng), position))
            taken += 1
        except (Corrupt, WrongModel):
            refused += 1
        except BadRequest:  # a position beyond n_ctx
            refused += 1
        if number % DECODE_EVERY == 0:
            runtime.load(2, {})
            runtime.forward([Feed(1, tokens[:2]), Feed(2, tokens[:1])])
    runtime.load(0, good)  # and its neighbours stand
    assert np.array_equal(runtime.forward([Feed(0, tokens[:1])]), expected)
    print(json.dumps({"taken": taken, "refused": refused}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
