"""A probe on its way through a worker: what ends it early, and the numbers that are made of what the runtime saw."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asm_toys import asm_runtime

from ssmprov import ops, wire
from ssmprov.errors import BadRequest, Cancelled, SsmprovError, TimedOut, Unavailable
from workers.checkpoints import Loaded, Store
from workers.context import Read, Snapshot, empty
from workers.job import Job
from workers.probing import MAX_TOKENS, Prober, Task, divergence
from workers.runtimes.base import Feed, Probe
from workers.state_cache import StateCache
from workers.turns import Turns, vocabulary_of

NOTHING = np.zeros(0, np.int32)


def task(**args: Any) -> Task:
    now = time.monotonic()
    return Task(request=wire.Request(wire.new_id(), "probe"), args=ops.Probe(**args), deadline=now + 60, arrived=now)


class Bench:
    """A prober over a tiny model, which counts what its runtime is asked to read, and does something after each."""

    def __init__(self, folder: Path) -> None:
        runtime = asm_runtime(folder, 1)
        self.readings: list[str] = []
        self.then: Callable[[], object] = lambda: None
        look = runtime.probe

        def probe(arrays: Any, tokens: Any, reading: Any, reply_tokens: int, before: Any = ()) -> Probe:
            seen = look(arrays, tokens, reading, reply_tokens, before)
            self.readings.append(reading.routing)
            self.then()
            return seen

        runtime.probe = probe  # type: ignore[method-assign]
        self.prober = Prober(runtime, "asm", None, None, vocabulary_of(runtime))  # type: ignore[arg-type]

    def look(self, asked: Task, replay: Any = NOTHING) -> ops.Probed:
        loaded = Loaded(object="", snapshot=empty(), replay=replay, parent="", seed=None, tokens=0)
        return self.prober.look(asked, loaded, self.prober.tokens(b"a text"))[0]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_plain_reading_is_made_only_beside_another_one(bench: Bench) -> None:
    assert not bench.look(task()).intervened
    assert bench.readings == ["softmax"]
    assert bench.look(task(routing="top1")).intervened
    assert bench.readings == ["softmax", "top1", "softmax"]


@pytest.mark.parametrize("when", ["before", "between"])
@pytest.mark.parametrize(("what", "error"), [("cancel", Cancelled), ("expire", TimedOut), ("close", Unavailable)])
def test_what_ends_a_probe_early_lets_no_further_reading_begin(
    bench: Bench, when: str, what: str, error: type[SsmprovError]
) -> None:
    asked = task(routing="top1")

    def act() -> None:
        if what == "cancel":
            asked.cancelled = True
        elif what == "expire":
            asked.deadline = 0.0
        else:
            bench.prober.close()

    if when == "before":
        act()
    else:
        bench.then = act
    with pytest.raises(error):
        bench.look(asked)
    assert bench.readings == ([] if when == "before" else ["top1"])


def test_a_step_too_far_from_a_stored_state_is_not_read_again(bench: Bench) -> None:
    with pytest.raises(BadRequest, match=f"takes {MAX_TOKENS + 1} tokens, but a probe reads at most {MAX_TOKENS}"):
        bench.look(task(), np.full(MAX_TOKENS + 1 - len("a text"), 66, np.int32))
    assert not bench.readings


def test_weights_and_tokens_are_listed_from_the_largest_and_none_is_listed_that_is_not_read(bench: Bench) -> None:
    found = bench.look(task(routing="top1", top=64))
    assert [[weight for _, _, weight in layer.top] for layer in found.layers] == [[1.0, 1.0], [1.0, 1.0]]
    chances = [token.probability for token in found.next]
    assert len(chances) == 64
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1.0


def test_a_divergence_is_that_of_kullback_and_leibler() -> None:
    logits = np.log(np.array([0.5, 0.25, 0.25], np.float32))
    other = np.log(np.array([0.25, 0.25, 0.5], np.float32)) + 7  # of logits only differences count
    assert divergence(logits, other) == pytest.approx(0.5 * np.log(2) - 0.25 * np.log(2), abs=1e-6)
    assert divergence(logits, logits) == 0.0
    never = np.array([0.0, 0.0, -np.inf], np.float32)
    assert divergence(never, np.zeros(3, np.float32)) == pytest.approx(np.log(1.5), abs=1e-6)


def test_what_a_probe_loads_is_not_collected_meanwhile(tmp_path: Path) -> None:
    runtime = asm_runtime(tmp_path, 1)
    runtime.forward([Feed(0, runtime.tokenize("read"))])
    tokens = np.array(runtime.tokenize("read"), np.int32)
    snapshot = Snapshot(
        arrays=runtime.save(0), logits=np.zeros(runtime.vocabulary, np.float32), window=tokens, tokens=len(tokens)
    )

    class Beside(Turns):
        """Loads while somebody takes the name away and collects what nothing reaches."""

        def load(self, job: Job | None, object_id: str) -> Loaded:
            store.remove(["ctx"])
            store.gc()
            return super().load(job, object_id)

    with Store(tmp_path / "store", "slots", runtime.identity) as store:
        store.commit(snapshot, Read(tokens, b"read"), "ctx")
        turns = Beside(store, None, runtime, StateCache(0), lambda _: None, None)  # type: ignore[arg-type]
        asked = task()
        asked.request.context = "ctx"
        prober = Prober(runtime, "asm", store, turns, vocabulary_of(runtime))
        assert prober.load(asked).snapshot.tokens == len(tokens)
