"""Prompts that begin alike are read once, and nobody notices but the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from asm_toys import asm_runtime
from batch_toys import PATIENCE_S, Bench, Gated, OpenBench, benches, nothing, text, turn
from rwkv_toys import rwkv_runtime

from ssmprov import ops
from ssmprov.errors import Cancelled, SsmprovError, TimedOut
from ssmprov.settings import Settings
from workers.context import Snapshot
from workers.job import Job
from workers.prefix_sharing import SHARED_TOKENS
from workers.runtimes.base import Feed
from workers.state_cache import StateCache

COMMON = "long " * 20
"""100 tokens of a toy."""

LUCKY = Settings(temp=0.8, top_k=20, pen_rep=1.2, pen_freq=0.2)


@pytest.fixture
def open_bench() -> Iterator[OpenBench]:
    with benches() as make:
        yield make


def read_of(runtime: Gated) -> int:
    """How many tokens the model has read since it was last asked."""
    return sum(len(feed.tokens) for _ in range(runtime.entered.qsize()) for feed in runtime.entered.get())


def sound(job: Job) -> None:
    """The state that was saved has read exactly what the turn says."""
    assert job.arrays is not None
    assert job.arrays["tokens"].tolist() == turn(job).tokens
    assert turn(job).text().text.endswith(turn(job).reply)


def beside(bench: Bench, prompts: Sequence[str], *, reading: str = "") -> list[Job]:
    """Jobs that are all there before the second step of the first one."""
    assert isinstance(bench.runtime, Gated)
    first = bench.submit(reading or prompts[0], tokens=6)
    assert bench.runtime.entered.get(timeout=PATIENCE_S)
    return [first, *(bench.submit(prompt, tokens=6) for prompt in prompts[not reading :])]


# -- side by side


def test_what_turns_have_in_common_is_read_once(open_bench: OpenBench) -> None:
    runtime = Gated(slots=6)
    bench = open_bench(runtime)
    jobs = beside(bench, [f"{COMMON}{letter} go" for letter in "abcdef"])
    runtime.run_on()
    bench.finished(6)
    for job in jobs:
        assert text(job) == "ticktock" * 3
        sound(job)
    assert [job.shared for job in jobs] == [0, *[len(COMMON)] * 5]
    assert bench.batch.gauges.prefill_tokens == len(COMMON) + 6 * len("a go")


def test_turns_that_go_on_together_after_others_have_parted_share_that_too(open_bench: OpenBench) -> None:
    runtime = Gated(slots=4)
    bench = open_bench(runtime)
    more = "more " * 10
    jobs = beside(bench, [f"{COMMON}go", f"{COMMON}{more}x go", f"{COMMON}{more}y go", f"{COMMON}z go"])
    runtime.run_on()
    bench.finished(4)
    for job in jobs:
        assert text(job) == "ticktock" * 3
        sound(job)
    assert [job.shared for job in jobs] == [0, len(COMMON), len(COMMON + more), len(COMMON)]


def test_the_same_prompt_costs_the_model_nothing_more(open_bench: OpenBench) -> None:
    runtime = Gated(slots=4)
    bench = open_bench(runtime)
    jobs = beside(bench, [f"{COMMON}go"] * 4)
    runtime.run_on()
    bench.finished(4)
    assert bench.batch.gauges.prefill_tokens == len(COMMON) + 2
    for job in jobs:
        assert text(job) == "ticktock" * 3
        sound(job)
        assert job.prompt_at >= job.admitted_at


@pytest.mark.parametrize(("kind", "seed"), [("rwkv", 1), ("rwkv", 2), ("asm", 3)])
def test_sampled_texts_are_those_of_the_turns_alone(
    open_bench: OpenBench, tmp_path: Path, kind: str, seed: int
) -> None:
    """On a real model: penalties, seed and position are each turn's own, also where it read nothing itself."""
    prompts = ["(Turn 1) [USER]: " + "tell me more " * 8 + tail for tail in ("", "now", "of it", "now")]
    model = rwkv_runtime if kind == "rwkv" else partial(asm_runtime, tmp_path)
    alone = []
    for index, prompt in enumerate(prompts):
        single = open_bench(model(1))
        single.submit(prompt, tokens=24, settings=LUCKY, seed=seed + index)
        alone += [text(job) for job in single.finished(1)]
    bench = open_bench(model(4), cache=StateCache(1 << 20))
    jobs = [bench.submit(prompt, tokens=24, settings=LUCKY, seed=seed + index) for index, prompt in enumerate(prompts)]
    again = bench.submit(prompts[2], tokens=24, settings=LUCKY, seed=seed + 2)
    bench.finished(5)
    assert [text(job) for job in jobs] == alone
    assert text(again) == alone[2]
    assert len(set(alone)) == 4
    assert again.shared > 100


def test_few_tokens_in_common_and_other_starts_are_read_by_everybody(open_bench: OpenBench) -> None:
    runtime = Gated(slots=7)
    runtime.run_on()
    bench = open_bench(runtime)
    root = bench.submit("root", tokens=0)
    bench.finished(1)
    assert root.arrays is not None
    one = replace(turn(root).snapshot(root.arrays, ""), object="a" * 64)
    starts: list[tuple[str, Snapshot | None]] = [
        ("x" * (SHARED_TOKENS - 1) + "a go", None),
        ("x" * (SHARED_TOKENS - 1) + "b go", None),
        (COMMON + "go", one),
        (COMMON + "go", replace(one, object="b" * 64)),
        (COMMON + "go", replace(one, object="")),
        (COMMON + "go", None),
    ]
    runtime.open = False
    while runtime.gate.acquire(blocking=False):
        pass
    first = bench.submit("x" * 20)
    runtime.entered = type(runtime.entered)()
    jobs = [bench.submit(prompt, start=start, tokens=4) for prompt, start in starts]
    runtime.run_on()
    bench.finished(7)
    assert [job.shared for job in (first, *jobs)] == [0] * 7
    assert [text(job) for job in jobs] == ["ticktockticktock"] * 6


def test_a_replay_reads_everything_itself(open_bench: OpenBench) -> None:
    runtime = Gated(slots=2)
    bench = open_bench(runtime, cache=StateCache(1 << 20))
    first = bench.submit(COMMON + "go", tokens=4)
    assert runtime.entered.get(timeout=PATIENCE_S)
    again = bench.submit(COMMON + "go", tokens=0, args=ops.Replay())
    runtime.run_on()
    bench.finished(2)
    assert (first.shared, again.shared) == (0, 0)
    assert bench.batch.gauges.prefill_tokens == 2 * len(COMMON + "go")


# -- who leads may go


def cancel(bench: Bench, job: Job) -> None:
    bench.batch.cancel(job, "drop")


def run_out(bench: Bench, job: Job) -> None:
    job.deadline = time.monotonic()


def break_down(bench: Bench, job: Job) -> None:
    def act(feeds: Sequence[Feed]) -> None:
        bench.runtime.act = nothing  # type: ignore[attr-defined]
        raise RuntimeError("out of memory")

    bench.runtime.act = act  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("end", "error"), [(cancel, Cancelled), (run_out, TimedOut), (break_down, SsmprovError)], ids=lambda x: x.__name__
)
def test_a_leader_that_fails_does_not_take_the_others_along(
    open_bench: OpenBench, end: Callable[[Bench, Job], None], error: type[Exception]
) -> None:
    runtime = Gated(slots=4)
    bench = open_bench(runtime)
    jobs = beside(bench, [f"{COMMON}{letter} go" for letter in "abcd"])
    runtime.gate.release()
    assert runtime.entered.get(timeout=PATIENCE_S)
    end(bench, jobs[0])
    runtime.run_on()
    bench.finished(4)
    assert isinstance(turn(jobs[0]).failed, error)
    for job in jobs[1:]:
        assert text(job) == "ticktock" * 3
        sound(job)
    assert [job.shared for job in jobs[1:]] == [0, len(COMMON), len(COMMON)]


def test_one_who_waits_may_go_too(open_bench: OpenBench) -> None:
    runtime = Gated(slots=4)
    bench = open_bench(runtime)
    jobs = beside(bench, [f"{COMMON}{letter} go" for letter in "abc"])
    runtime.gate.release()
    assert runtime.entered.get(timeout=PATIENCE_S)
    bench.batch.cancel(jobs[1], "keep")
    runtime.run_on()
    assert bench.finished(3)[0] == jobs[1]
    assert isinstance(turn(jobs[1]).failed, Cancelled)
    assert [text(jobs[0]), text(jobs[2])] == ["ticktock" * 3] * 2
    assert jobs[2].shared == len(COMMON)
    sound(jobs[2])


def test_where_the_state_cannot_be_saved_everybody_reads(
    open_bench: OpenBench, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = Gated(slots=3)
    bench = open_bench(runtime)

    def refuse(_: int) -> None:
        raise RuntimeError("the device is gone")

    runtime.on_save = refuse
    jobs = [bench.submit(f"{COMMON}{letter} go", tokens=4, save="") for letter in "abc"]
    runtime.run_on()
    bench.finished(3)
    assert [text(job) for job in jobs] == ["ticktockticktock"] * 3
    assert [job.shared for job in jobs] == [0, 0, 0]
    assert "the device is gone" in caplog.text


def test_a_state_that_cannot_be_loaded_ends_its_turn_alone(open_bench: OpenBench) -> None:
    runtime = Gated(slots=3)
    bench = open_bench(runtime)
    jobs = beside(bench, [f"{COMMON}{letter} go" for letter in "abc"])
    runtime.gate.release()
    assert runtime.entered.get(timeout=PATIENCE_S)

    def refuse(slot: int) -> None:
        if slot == jobs[1].slot:
            raise RuntimeError("a bad bit")

    runtime.on_load = refuse
    runtime.run_on()
    bench.finished(3)
    assert "a bad bit" in str(turn(jobs[1]).failed)
    assert [text(jobs[0]), text(jobs[2])] == ["ticktock" * 3] * 2
    sound(jobs[2])


# -- one after the other


def test_the_same_prompt_again_is_not_read_again(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    cache = StateCache(1 << 20)
    bench = open_bench(runtime, cache=cache)
    first = bench.submit(COMMON + "go", tokens=3)
    bench.finished(1)
    assert read_of(runtime) == len(COMMON + "go") + 3
    kept = cache.find("", turn(first).script.tobytes())
    assert kept is not None
    assert kept.logits is not None
    assert kept.logits.base is None, "not the logits of a whole batch"
    again = bench.submit(COMMON + "go", tokens=5)
    longer = bench.submit(COMMON + "go on and on, go", tokens=5)
    bench.finished(2)
    assert read_of(runtime) == 5 + len(" on and on, go") + 5
    assert [job.shared for job in (first, again, longer)] == [0, *[len(COMMON + "go")] * 2]
    for job in (first, again, longer):
        sound(job)
    assert text(again) == "ticktockticktocktick"


def test_what_is_only_read_is_kept_under_its_own_name_alone(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    cache = StateCache(1 << 20)
    bench = open_bench(runtime, cache=cache)
    bench.submit(COMMON + "end", tokens=0)
    bench.finished(1)
    assert len(cache) == 0


def test_nothing_is_kept_beyond_the_budget(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    cache = StateCache(500)
    bench = open_bench(runtime, cache=cache)
    bench.submit(COMMON + "go", tokens=3)
    bench.finished(1)
    again = bench.submit(COMMON + "go", tokens=3)
    bench.finished(1)
    assert (len(cache), cache.bytes, again.shared) == (0, 0, 0)


def test_a_state_after_a_prompt_is_found_by_the_longest_part() -> None:
    def state(tokens: int) -> Snapshot:
        return Snapshot(arrays={"a": np.zeros(10, np.uint8)}, logits=None, window=np.zeros(0, np.int32), tokens=tokens)

    cache = StateCache(1000)
    cache.keep("x", b"abcd", state(1))
    cache.keep("x", b"abcdefgh", state(2))
    cache.keep("y", b"abcdefghijkl", state(3))
    assert [cache.find("x", key) is not None for key in (b"", b"abc", b"zbcdefgh")] == [False] * 3
    found = [cache.find("x", key) for key in (b"abcdefghijkl", b"abcdzzzz", b"abcdefgh")]
    assert [state and state.tokens for state in found] == [2, 1, 2]
    assert cache.find("", b"abcd") is None
    assert cache.bytes == 30 + 4 + 8 + 12
