"""Variants: other sets of weights of the same shape as the model's own, with which its contexts may be read.

A state with the array `weights` names a set by the hash of its file. The slot that loads the state is read with these
weights, and a state saved from the slot names them again, so a context keeps them wherever it goes. A state without
that array is read with the model's own weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from ssmprov.errors import Corrupt, NotFound
from workers.checkpoints.weights import ID_BYTES, WeightFiles
from workers.context import WEIGHTS, Arrays
from workers.runtimes.base import Feed, Logits

SPARE = 8
"""Variants kept in memory in addition to those in slots."""

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class Variant(Generic[Model]):
    """A model ready to run, and the id of its weights: b'' for the model's own."""

    id: bytes
    model: Model


class Variants(Generic[Model]):
    """Which weights each slot is read with. Any thread may call `find`, only the model thread the rest."""

    def __init__(self, own: Model, slots: int, folder: Path | None, build: Callable[[bytes, str], Model]) -> None:
        """`build` makes a model from the bytes of a file; its Corrupt begins with the name that it is given."""
        self._own = Variant(b"", own)
        self._slots = [self._own] * slots
        self._apart = False  # whether any slot holds a variant
        self._files = None if folder is None else WeightFiles(folder)
        self._build = build
        self._loaded: OrderedDict[bytes, Variant[Model]] = OrderedDict()  # the least recently used first
        self._lock = threading.Lock()

    def find(self, arrays: Arrays) -> Variant[Model]:
        """The weights to read a state with, loaded if necessary. Raises NotFound and Corrupt that say what to do."""
        if WEIGHTS not in arrays:
            return self._own
        named = arrays[WEIGHTS]
        if named.dtype != np.uint8 or named.shape != (ID_BYTES,):
            raise Corrupt(
                f"this checkpoint names its weights with {named.dtype} {list(named.shape)}, which is not a hash"
            )
        with self._lock:
            found = self._loaded.get(named.tobytes()) or self._load(named.tobytes())
            self._loaded[found.id] = found
            self._loaded.move_to_end(found.id)
            self._let_go()
        return found

    def hold(self, slot: int, variant: Variant[Model]) -> None:
        """Read this slot with this variant from now on."""
        self._slots[slot] = variant
        self._apart = any(held is not self._own for held in self._slots)
        if self._apart:
            with self._lock:
                self._let_go()

    def named(self, slot: int, arrays: Arrays) -> Arrays:
        """The arrays of a slot's state, with the name of its weights unless they are the model's own."""
        held = self._slots[slot].id
        return {**arrays, WEIGHTS: np.frombuffer(held, np.uint8)} if held else arrays

    def forward(self, feeds: Sequence[Feed], read: Callable[[Model, Sequence[Feed]], Logits]) -> Logits:
        """Read each feed with the weights of its slot: the logits [len(feeds), V], in the order of the feeds."""
        if not self._apart:
            return read(self._own.model, feeds)
        groups: dict[bytes, list[int]] = {}
        for row, feed in enumerate(feeds):
            groups.setdefault(self._slots[feed.slot].id, []).append(row)
        if len(groups) == 1:
            return read(self._slots[feeds[0].slot].model, feeds)
        parts = [
            (rows, read(self._slots[feeds[rows[0]].slot].model, [feeds[row] for row in rows]))
            for rows in groups.values()
        ]
        logits = np.empty((len(feeds), parts[0][1].shape[1]), np.float32)
        for rows, part in parts:
            logits[rows] = part
        return logits

    def __len__(self) -> int:
        """The number of variants in memory."""
        return len(self._loaded)

    def _load(self, weights_id: bytes) -> Variant[Model]:
        if self._files is None:
            raise NotFound(f"the weights {weights_id.hex()[:12]} of this context cannot be read: no store is open")
        data = self._files.read(weights_id.hex())
        return Variant(weights_id, self._build(data, f"the weights {weights_id.hex()[:12]} of this context"))

    def _let_go(self) -> None:
        held = {variant.id for variant in self._slots}
        spare = [each for each in self._loaded if each not in held]
        for each in spare[:-SPARE]:
            del self._loaded[each]


def without_weights(arrays: Arrays) -> Arrays:
    """The arrays of the state itself."""
    return {name: array for name, array in arrays.items() if name != WEIGHTS} if WEIGHTS in arrays else arrays
