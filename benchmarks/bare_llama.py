"""llama.cpp without ssmprov, and its runtime without a worker, both with the same file and one thread.

`python -P -m benchmarks.bare_llama GGUF CACHE SEQUENCES N_CTX`: like `bare`, it is idle while the served model runs.
SEQUENCES are those of the library, and N_CTX is per sequence.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.serving import obey
from ssmprov.process import die_with_parent
from workers.context import Arrays
from workers.runtimes import base
from workers.runtimes.llama import native

N_BATCH = 512
SLOTS = 4
TEXT = "".join(f"Line {number} of many, to be read by one model.\n" for number in range(400))


class Library:
    """A GGUF and one context with several sequences, with the library's defaults."""

    def __init__(self, path: str, sequences: int, n_ctx: int) -> None:
        lib = self._lib = native.library()
        self._model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_seq_max = sequences
        params.n_ctx = n_ctx * sequences
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = 1
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot open {path}{native.why()}")
        self._memory = lib.llama_get_memory(self._context)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._vocabulary = lib.llama_vocab_n_tokens(self._vocab)
        self._batch = lib.llama_batch_init(N_BATCH, 0, 1)

    def decode(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        """Read prompts of equal length in one batch and write greedy tokens after each. Returns seconds and texts."""
        began = perf_counter()
        self._lib.llama_memory_clear(self._memory, False)
        rows = [self._tokens(prompt) for prompt in prompts]
        position, written = 0, []
        for _ in range(tokens):
            lasts = self._read(rows, position)
            position += len(rows[0])
            rows = [[int(self._logits(at).argmax())] for at in lasts]
            written.append([token for (token,) in rows])
        self._read(rows, position)
        seconds = perf_counter() - began
        texts = [b"".join(map(self._piece, row)).decode() for row in zip(*written, strict=True)]
        return {"seconds": seconds, "texts": texts}

    def prime(self, text: str, tokens: int) -> ctypes.Array[ctypes.c_uint8]:
        """Let the first sequence read this many tokens of a text. Returns a buffer for its state."""
        self._lib.llama_memory_clear(self._memory, False)
        self._read([self._tokens(text)[:tokens]], 0)
        return (ctypes.c_uint8 * int(self._lib.llama_state_seq_get_size(self._context, 0)))()

    def get(self, state: ctypes.Array[ctypes.c_uint8]) -> None:
        taken = self._lib.llama_state_seq_get_data(self._context, state, len(state), 0)
        assert taken == len(state)

    def set(self, state: ctypes.Array[ctypes.c_uint8]) -> None:
        taken = self._lib.llama_state_seq_set_data(self._context, state, len(state), 1)
        assert taken == len(state)

    def _read(self, rows: list[list[int]], position: int) -> list[int]:
        """Decode one row for each sequence. Returns the index in the batch of each row's last token."""
        batch, at, lasts = self._batch, 0, []
        for sequence, row in enumerate(rows):
            for offset, token in enumerate(row):
                batch.token[at] = token
                batch.pos[at] = position + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = sequence
                batch.logits[at] = offset == len(row) - 1
                at += 1
            lasts.append(at - 1)
        batch.n_tokens = at
        if self._lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama.cpp cannot decode{native.why()}")
        return lasts

    def _logits(self, at: int) -> base.Logits:
        return np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, at), (self._vocabulary,))

    def _tokens(self, text: str) -> list[int]:
        data = text.encode()
        found = (ctypes.c_int32 * (len(data) + 8))()
        length = self._lib.llama_tokenize(self._vocab, data, len(data), found, len(found), True, False)
        return found[:length]

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = self._lib.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]


class Bare:
    """The library, and a runtime with its own copy of the model."""

    def __init__(self, path: str, cache: str, sequences: int, n_ctx: int) -> None:
        self._library = Library(path, sequences, n_ctx)
        options = {"n_threads": 1, "n_batch": N_BATCH, "n_ctx": n_ctx}
        plan = base.Plan(path=Path(path), slots=SLOTS, options=options, cache=Path(cache))
        self._runtime = base.load("llama", plan)
        self._text = self._runtime.tokenize(TEXT)

    def decode(self, prompts: list[str], tokens: int) -> dict[str, Any]:
        return self._library.decode(prompts, tokens)

    def prefill(self, tokens: int, step: int) -> dict[str, Any]:
        """Let the runtime read a text, `step` tokens at a time. Returns seconds."""
        runtime = self._runtime
        runtime.load(0, {})
        began = perf_counter()
        for at in range(0, tokens, step):
            runtime.forward([base.Feed(0, self._text[at : min(tokens, at + step)])])
        return {"seconds": perf_counter() - began}

    def states(self, tokens: int, count: int) -> dict[str, Any]:
        """Measure operations on the state of a context that has read this many tokens. Returns median seconds."""
        runtime, library = self._runtime, self._library
        runtime.load(0, {})
        runtime.forward([base.Feed(0, self._text[:tokens])])
        arrays = runtime.save(0)
        source = np.zeros(arrays["state"].nbytes, np.uint8)
        target = np.zeros_like(source)
        state = library.prime(TEXT, tokens)
        feed = base.Feed(1, self._text[:1])
        foreign: Arrays = {}

        def clear() -> None:
            nonlocal foreign
            runtime.load(1, {})
            foreign = {
                name: np.array(array) for name, array in arrays.items()
            }  # new arrays that the runtime does not know

        steps: dict[str, Callable[[], object]] = {
            "fork": lambda: runtime.load(1, arrays),
            "token of a fork": lambda: runtime.forward([feed]),
            "token": lambda: runtime.forward([feed]),
            "save": lambda: runtime.save(1),
            "get": lambda: library.get(state),
            "in place": lambda: runtime.load(0, arrays),
            "memcpy": lambda: np.copyto(target, source),
            "clear": clear,
            "load": lambda: runtime.load(1, foreign),
            "set": lambda: library.set(state),
        }
        taken: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(count):
            clear()
            for name, step in steps.items():
                began = perf_counter()
                step()
                taken[name].append(perf_counter() - began)
        return {name: float(np.median(values)) for name, values in taken.items()} | {"bytes": len(source)}


def main(path: str, cache: str, sequences: str, n_ctx: str) -> None:
    die_with_parent()
    bare = Bare(path, cache, int(sequences), int(n_ctx))
    obey({"decode": bare.decode, "prefill": bare.prefill, "states": bare.states})


if __name__ == "__main__":
    main(*sys.argv[1:])
