"""The model without ssmprov, in a separate process: `python -P -m benchmarks.bare WEIGHTS THREADS`.

It reads commands as lines of JSON and answers each with one line, so it is idle while the served model is measured.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch

from benchmarks.serving import obey
from models import rwkv7
from ssmprov.process import die_with_parent
from workers.runtimes import base

BANDWIDTH_BYTES = 256 << 20

FORKS = 32
"""The number of slots that one context is forked into."""

T = TypeVar("T")


class Bare:
    """One set of weights, run by the simplest possible loop."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._path = path
        self._threads = threads
        self._weights = rwkv7.load(path)
        self._tokenizer = rwkv7.tokenizer_for(self._weights.config)

    def decode(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """Read prompts of equal length in one batch and write greedy tokens after each. Returns seconds and texts."""
        began = perf_counter()
        read = torch.tensor([self._tokenizer.encode(prompt) for prompt in prompts])  # (B, T)
        state = rwkv7.new_state(self._weights.config, len(prompts))
        logits, state = rwkv7.forward(self._weights, read, None, state)
        written = []
        for _ in range(tokens):
            chosen = logits.argmax(dim=1)
            written.append(chosen.tolist())
            logits, state = rwkv7.forward(self._weights, chosen.unsqueeze(1), None, state)
        seconds = perf_counter() - began
        texts = [b"".join(map(self._tokenizer.piece, row)).decode() for row in zip(*written, strict=True)]
        return {"seconds": seconds, "texts": texts}

    def count(self, text: str) -> dict[str, Any]:
        return {"tokens": len(self._tokenizer.encode(text))}

    def prefill(self, text: str, step: int) -> dict[str, Any]:
        """Read a text in slices and choose the first token after it. Returns seconds."""
        began = perf_counter()
        read = torch.tensor([self._tokenizer.encode(text)])
        state = rwkv7.new_state(self._weights.config, 1)
        for at in range(0, read.shape[1], step):
            logits, state = rwkv7.forward(self._weights, read[:, at : at + step], None, state)
        int(logits.argmax(dim=1))
        return {"seconds": perf_counter() - began}

    def fork(self, count: int) -> dict[str, Any]:
        """Load a state into a slot of a worker's runtime, and copy the same number of bytes. Returns median seconds.

        `load` is one load, `loads` are loads into 32 slots, `save` takes a state out of a slot, and `fresh` copies
        into new memory.
        """
        runtime = base.load("rwkv", base.Plan(path=self._path, slots=1 + FORKS, options={"threads": self._threads}))
        runtime.forward([base.Feed(0, [1])])
        arrays = runtime.save(0)
        source = np.ones(runtime.state_bytes, np.uint8)
        targets = np.ones((FORKS, runtime.state_bytes), np.uint8)

        def load(slots: Iterable[int]) -> None:
            for slot in slots:
                runtime.load(1 + slot, arrays)

        def copy(slots: Iterable[int]) -> None:
            for slot in slots:
                np.copyto(targets[slot], source)

        one, each = [[number % FORKS] for number in range(count)], [range(FORKS)] * max(1, count // FORKS)
        return {
            "load": _median_s(load, one),
            "copy": _median_s(copy, one),
            "loads": _median_s(load, each),
            "copies": _median_s(copy, each),
            "save": _median_s(runtime.save, [0] * count),
            "fresh": _median_s(lambda _: source.copy(), [0] * count),
            "bytes": runtime.state_bytes,
        }

    def bandwidth(self) -> dict[str, Any]:
        """The memory bandwidth of a matrix-vector product, and the bytes that a decode step reads."""
        rows = torch.ones(BANDWIDTH_BYTES // 4 // 4096, 4096)
        vector = torch.ones(4096)
        torch.mv(rows, vector)
        began = perf_counter()
        torch.mv(rows, vector)
        seconds = perf_counter() - began
        tensors = rwkv7.read_tensors(self._path)
        read = sum(4 * tensor.numel() for name, tensor in tensors.items() if name != "emb.weight")
        return {"bytes_per_s": BANDWIDTH_BYTES / seconds, "token_bytes": read}


def _median_s(action: Callable[[T], object], arguments: Sequence[T]) -> float:
    taken = []
    for argument in arguments:
        began = perf_counter()
        action(argument)
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def main(path: str, threads: str) -> None:
    die_with_parent()
    bare = Bare(Path(path), int(threads))
    obey(
        {
            "decode": bare.decode,
            "count": bare.count,
            "prefill": bare.prefill,
            "fork": bare.fork,
            "bandwidth": bare.bandwidth,
        }
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
