"""Variants: sets of weights beside a model's own, of the same shape, that its contexts may be read with.

A state whose arrays hold `weights` names them by the hash of their file. The slot into which it is loaded is read with
these weights, and what is saved from the slot names them again, so a context keeps them wherever it goes. A state that
names none is read with the model's own.
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
"""Variants that are kept in memory beside those that slots hold."""

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class Variant(Generic[Model]):
    """A model ready to run, and the id of its weights: b'' for the model's own."""

    id: bytes
    model: Model


class Variants(Generic[Model]):
    """Which weights each slot is read with. `find` may be called by any thread, all else by the model's alone."""

    def __init__(self, own: Model, slots: int, folder: Path | None, build: Callable[[bytes, str], Model]) -> None:
        """`build` makes a model of a file's bytes, and raises Corrupt that begins with the name it is given."""
        self._own = Variant(b"", own)
        self._slots = [self._own] * slots
        self._apart = False  # whether any slot holds a variant
        self._files = None if folder is None else WeightFiles(folder)
        self._build = build
        self._loaded: OrderedDict[bytes, Variant[Model]] = OrderedDict()  # the least recently used first
        self._lock = threading.Lock()

    def find(self, arrays: Arrays) -> Variant[Model]:
        """What a state is to be read with, loaded if need be. Raises NotFound and Corrupt that say what to do."""
        if WEIGHTS not in arrays:
            return self._own
        named = arrays[WEIGHTS]
        if named.dtype != np.uint8 or named.shape != (ID_BYTES,):
            raise Corrupt(
                f"this checkpoint names its weights by {named.dtype} {list(named.shape)}, which is not a hash"
            )
        with self._lock:
            found = self._loaded.get(named.tobytes()) or self._load(named.tobytes())
            self._loaded[found.id] = found
            self._loaded.move_to_end(found.id)
            self._let_go()
        return found

    def hold(self, slot: int, variant: Variant[Model]) -> None:
        """Read this slot with it from now on."""
        self._slots[slot] = variant
        self._apart = any(held is not self._own for held in self._slots)
        if self._apart:
            with self._lock:
                self._let_go()

    def named(self, slot: int, arrays: Arrays) -> Arrays:
        """The arrays of a slot's state, and the weights that it is read with unless they are the model's own."""
        held = self._slots[slot].id
        return {**arrays, WEIGHTS: np.frombuffer(held, np.uint8)} if held else arrays

    def forward(self, feeds: Sequence[Feed], read: Callable[[Model, Sequence[Feed]], Logits]) -> Logits:
        """`read` with each model what its slots are fed: the logits [len(feeds), V], in the order of the feeds."""
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
        """Variants in memory."""
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
