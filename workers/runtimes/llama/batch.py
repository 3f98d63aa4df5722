"""A `llama_batch` over our own memory."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from workers.runtimes.llama.native import Library


class Batch:
    """A `llama_batch` over our own memory."""

    def __init__(self, lib: Library, capacity: int, sequences: int) -> None:
        int32 = ctypes.c_int32
        self._token = (int32 * capacity)()
        self._position = (int32 * capacity)()
        self._counts = (int32 * capacity)(*[1] * capacity)
        self._sequences = (int32 * sequences)(*range(sequences))
        self._pointers = (ctypes.POINTER(int32) * capacity)()
        self._wanted = (ctypes.c_int8 * capacity)()
        self._places = [ctypes.pointer(int32.from_buffer(self._sequences, 4 * at)) for at in range(sequences)]
        self.native = lib.llama_batch(0, self._token, None, self._position, self._counts, self._pointers, self._wanted)
        """The struct for the library: the rows of the last `fill`."""

    def fill(self, rows: Sequence[tuple[int, int, list[int]]]) -> None:
        """Take (sequence, position, tokens). Logits are computed for the last token of each row."""
        at = 0
        for sequence, position, tokens in rows:
            place = self._places[sequence]
            for offset, token in enumerate(tokens):
                self._token[at] = token
                self._position[at] = position + offset
                self._pointers[at] = place
                self._wanted[at] = 0
                at += 1
            self._wanted[at - 1] = 1
        self.native.n_tokens = at
