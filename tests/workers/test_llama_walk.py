"""Random walks: whatever was fed, batched, forked, removed, saved and loaded, each context is what it has read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from llama_toys import KINDS, RECURRENT, copied, open_toy, words

from workers.context import Arrays
from workers.runtimes.base import Feed
from workers.runtimes.llama.runtime import LlamaRuntime

STEPS = 400
SLOTS = 5
TOLERANCE = 1e-3
"""Largest difference of logits whose spread is about 6: other shapes of batches add in another order."""


@pytest.fixture(scope="module", params=KINDS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LlamaRuntime, LlamaRuntime]]:
    """The runtime that walks, and one with a single slot that reads each context again from its first token."""
    folder = tmp_path_factory.mktemp("walk")
    walker = open_toy(folder, request.param, SLOTS, n_ctx=512)
    oracle = open_toy(folder, request.param, 1, n_ctx=512)
    yield walker, oracle
    walker.close()
    oracle.close()


@dataclass
class Walk:
    """What each slot and each saved state has read."""

    walker: LlamaRuntime
    oracle: LlamaRuntime
    rng: np.random.Generator
    slots: list[list[int]] = field(default_factory=lambda: [[] for _ in range(SLOTS)])
    saved: list[tuple[list[int], Arrays]] = field(default_factory=list)

    def start(self) -> None:
        for slot in range(SLOTS):
            self.walker.load(slot, {})

    def step(self) -> None:
        getattr(self, str(self.rng.choice(["feed", "feed", "batch", "batch", "fork", "remove", "save", "load"])))()

    def slot(self) -> int:
        return int(self.rng.integers(SLOTS))

    def feed(self) -> None:
        self.read([self.slot()], int(self.rng.integers(1, 12)))

    def batch(self) -> None:
        count = int(self.rng.integers(2, SLOTS + 1))
        self.read([int(s) for s in self.rng.permutation(SLOTS)[:count]], 3)

    def read(self, slots: list[int], most: int) -> None:
        feeds = []
        for slot in slots:
            if len(self.slots[slot]) > 300:
                self.walker.load(slot, {})
                self.slots[slot] = []
            feeds.append(Feed(slot, words(self.walker, self.rng, int(self.rng.integers(1, most + 1)))))
        logits = self.walker.forward(feeds)
        for row, feed in enumerate(feeds):
            self.slots[feed.slot] = [*self.slots[feed.slot], *feed.tokens]
            if self.rng.random() < 0.3:
                self.compare(feed.slot, logits[row])

    def compare(self, slot: int, logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        self.oracle.load(0, {})
        expected = self.oracle.forward([Feed(0, self.slots[slot])])[0]
        assert np.abs(expected - logits).max() < TOLERANCE

    def fork(self) -> None:
        source, target = self.slot(), self.slot()
        self.walker.load(target, self.walker.save(source))
        self.slots[target] = self.slots[source]

    def remove(self) -> None:
        slot = self.slot()
        self.walker.load(slot, {})
        self.slots[slot] = []

    def save(self) -> None:
        slot = self.slot()
        self.saved.append((self.slots[slot], self.walker.save(slot)))
        del self.saved[:-8]

    def load(self) -> None:
        if self.saved:
            tokens, arrays = self.saved[int(self.rng.integers(len(self.saved)))]
            slot = self.slot()
            self.walker.load(slot, copied(arrays) if self.rng.random() < 0.5 else arrays)
            self.slots[slot] = tokens

    def end(self) -> None:
        """Every slot and every saved state stands where it should."""
        for slot in range(SLOTS):
            tokens = words(self.walker, self.rng, 1)
            logits = self.walker.forward([Feed(slot, tokens)])[0]
            self.slots[slot] = [*self.slots[slot], *tokens]
            self.compare(slot, logits)
        for tokens, arrays in self.saved:
            more = words(self.walker, self.rng, 1)
            self.walker.load(0, arrays)
            self.slots[0] = [*tokens, *more]
            self.compare(0, self.walker.forward([Feed(0, more)])[0])


@pytest.mark.parametrize("seed", range(6))
def test_a_context_is_what_it_has_read(pair: tuple[LlamaRuntime, LlamaRuntime], seed: int) -> None:
    walk = Walk(*pair, np.random.default_rng(seed))
    walk.start()
    for _ in range(STEPS):
        walk.step()
    walk.end()


def test_more_parked_copies_than_there_is_room_for_push_out_the_oldest(tmp_path: Path) -> None:
    for kind in RECURRENT:
        runtime = open_toy(tmp_path, kind, 2)
        kept = []
        for turn in range(12):
            runtime.load(0, {})
            tokens = words(runtime, np.random.default_rng(turn), 5)
            runtime.forward([Feed(0, tokens)])
            kept.append((tokens, runtime.save(0)))
        for tokens, arrays in kept:
            runtime.load(1, arrays)
            again = runtime.forward([Feed(1, tokens[:1])])
            runtime.load(0, {})
            assert np.abs(again - runtime.forward([Feed(0, [*tokens, tokens[0]])])).max() < TOLERANCE
        runtime.close()
