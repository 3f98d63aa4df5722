"""A reply ends before a header on every runtime: the state goes back, and is that of the reply alone."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asm_toys import asm_runtime
from batch_toys import Bench, OpenBench, benches, text, turn
from rwkv_toys import rwkv_runtime

from ssmprov.transcript import FENCE
from workers.context import Arrays
from workers.runtimes import scripted
from workers.runtimes.base import Feed, Logits, Plan, Runtime

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def open_bench() -> Iterator[OpenBench]:
    with benches() as make:
        yield make


class Dictated:
    """A real runtime whose contexts say what is dictated: after a prompt that ends with the key, the text."""

    def __init__(self, runtime: Runtime, said: dict[str, str]) -> None:
        self._runtime = runtime
        self._said = {key.encode(): value.encode() for key, value in said.items()}
        self._read = [b""] * runtime.slots
        self._saved: list[tuple[Arrays, bytes]] = []
        self.loads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def load(self, slot: int, arrays: Arrays) -> None:
        self._runtime.load(slot, arrays)
        self._read[slot] = next((read for saved, read in self._saved if saved is arrays), b"")
        self.loads += bool(arrays)

    def save(self, slot: int) -> Arrays:
        arrays = self._runtime.save(slot)
        self._saved.append((arrays, self._read[slot]))
        return arrays

    def forward(self, feeds: Sequence[Feed]) -> Logits:
        logits = self._runtime.forward(feeds).copy()
        for row, feed in enumerate(feeds):
            self._read[feed.slot] += b"".join(map(self._runtime.piece, feed.tokens))
            if (token := self._next(self._read[feed.slot])) is not None:
                logits[row, token] = 1e6
        return logits

    def _next(self, read: bytes) -> int | None:
        for key, said in self._said.items():
            _, found, after = read.partition(key)
            if found and said.startswith(after) and said != after:
                return self._runtime.tokenize(said[len(after) :].decode())[0]
        return min(self._runtime.end_tokens)


def _scripted(folder: Path, slots: int) -> Runtime:
    path = folder / "script.json"
    path.write_text('{"replies": [{"after": "", "pieces": ["never"]}]}')
    return scripted.open_runtime(Plan(path=path, slots=slots))


def _llama(kind: str) -> Callable[[Path, int], Runtime]:
    def opened(folder: Path, slots: int) -> Runtime:
        if importlib.util.find_spec("llama_cpp") is None:
            pytest.skip("llama.cpp is not installed")
        from llama_toys import open_toy

        return open_toy(folder, kind, slots)

    return opened


KINDS: dict[str, Callable[[Path, int], Runtime]] = {
    "rwkv": lambda _, slots: rwkv_runtime(slots),
    "asm": asm_runtime,
    "scripted": _scripted,
    "mamba": _llama("mamba"),
    "llama": _llama("llama"),
}
SAID = {
    "one?": "yes\n\n(Turn 3) [USER]: and more",
    "two?": "(a) no\n(b) or\n(Turn 3",
    "three?": "plain",
    "four?": "a\n(Turn 3\n(Turn 4) [B]:",
}
SAYS = {"one?": "yes" + FENCE, "two?": SAID["two?"], "three?": "plain", "four?": "a\n(Turn 3" + FENCE}


def _after(bench: Bench, job: Any) -> Logits:
    """The logits of a further token after the saved state of a job."""
    runtime = bench.runtime
    runtime.load(0, job.arrays)
    return runtime.forward([Feed(0, runtime.tokenize("z"))])[0]


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_before_a_header_is_that_of_the_reply(open_bench: OpenBench, tmp_path: Path, kind: str) -> None:
    bench = open_bench(Dictated(KINDS[kind](tmp_path, 3), SAID))
    jobs = {prompt: bench.submit(prompt, tokens=60) for prompt in SAID}
    bench.finished(4)
    assert {prompt: text(job) for prompt, job in jobs.items()} == SAYS
    assert [turn(job).stop for job in jobs.values()] == ["header", "end", "end", "header"]
    for prompt, job in jobs.items():
        assert bench.streamed(job) == SAYS[prompt].encode()
        assert turn(job).text().text == (prompt + SAYS[prompt]).encode()
    alone = open_bench(Dictated(KINDS[kind](tmp_path, 1), {}))
    for prompt, job in jobs.items():
        fresh = alone.submit(prompt + SAYS[prompt], tokens=0)
        alone.finished(1)
        assert job.arrays is not None
        if kind == "scripted":
            assert job.arrays["text"].tobytes() == (prompt + SAYS[prompt]).encode()
        apart = np.abs(_after(bench, job) - _after(alone, fresh))
        assert apart[np.isfinite(apart)].max() < 2e-3


def test_only_a_possible_header_takes_the_state_out(open_bench: OpenBench) -> None:
    runtime = Dictated(rwkv_runtime(1), SAID)
    bench = open_bench(runtime)
    for prompt, saved in (("three?", 0), ("two?", 2), ("one?", 1)):
        before, loads = len(runtime._saved), runtime.loads
        bench.submit(prompt, tokens=60, save="")
        bench.finished(1)
        assert len(runtime._saved) - before == saved
        assert runtime.loads - loads == (prompt == "one?")
