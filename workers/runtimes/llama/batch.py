"""A `llama_batch` over numpy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from workers.runtimes.llama.native import Library


class Batch:
    """A `llama_batch` over arrays of our own."""

    def __init__(self, capacity: int, sequences: int) -> None:
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._sequences = np.arange(sequences, dtype=np.int32)
        self._pointers = np.zeros(capacity, np.uintp)
        self._wanted = np.zeros(capacity, np.int8)
        self._n = 0

    def fill(self, rows: Sequence[tuple[int, int, list[int]]]) -> list[int]:
        """Take (sequence, position, tokens); the index of each row's last token, whose logits are wanted."""
        at = 0
        lasts = []
        for sequence, position, tokens in rows:
            end = at + len(tokens)
            self._token[at:end] = tokens
            self._position[at:end] = np.arange(position, position + len(tokens))
            self._pointers[at:end] = self._sequences.ctypes.data + 4 * sequence
            self._wanted[at:end] = 0
            self._wanted[end - 1] = 1
            lasts.append(end - 1)
            at = end
        self._n = at
        return lasts

    def of(self, lib: Library) -> object:
        """The structure, good until the next `fill`."""
        int32 = ctypes.POINTER(ctypes.c_int32)
        return lib.llama_batch(
            self._n,
            self._token.ctypes.data_as(int32),
            None,
            self._position.ctypes.data_as(int32),
            self._counts.ctypes.data_as(int32),
            self._pointers.ctypes.data_as(ctypes.POINTER(int32)),
            self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )
