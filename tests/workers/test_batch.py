"""The scheduler: turns that run together and do not notice, and what ends one of them but not the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from asm_toys import asm_runtime
from batch_toys import PATIENCE_S, Gated, OpenBench, benches, nothing, text, turn
from rwkv_toys import rwkv_runtime
from turn_toys import ToyRuntime

from ssmprov.errors import Cancelled, Corrupt, SsmprovError, TimedOut
from ssmprov.settings import Settings
from workers.batch import PROGRESS_TOKENS
from workers.runtimes.base import Logits, Runtime


@pytest.fixture
def open_bench() -> Iterator[OpenBench]:
    with benches() as make:
        yield make


def fail(error: Exception) -> Callable[[object], None]:
    def act(_: object) -> None:
        raise error

    return act


# -- isolation


REAL: dict[str, Callable[[Path, int], Runtime]] = {"rwkv": lambda _, slots: rwkv_runtime(slots), "asm": asm_runtime}


@pytest.mark.parametrize(("kind", "slots"), [("rwkv", 3), ("rwkv", 8), ("asm", 3)])
def test_contexts_batched_in_any_way_say_what_they_say_alone(
    open_bench: OpenBench, tmp_path: Path, kind: str, slots: int
) -> None:
    """Invariant 4 on real runtimes: greedy texts of 8 contexts that join and leave at different times."""
    prompts = ["a", "(Turn 1) [USER]: hello ", "to be or", "é" * 30, "x " * 40, "12345", "the same", "the same"]
    lengths = [24, 15, 20, 8, 17, 24, 12, 19]
    alone = []
    for prompt, length in zip(prompts, lengths, strict=True):
        single = open_bench(REAL[kind](tmp_path, 1))
        single.submit(prompt, tokens=length)
        alone += [text(job) for job in single.finished(1)]
    together = open_bench(REAL[kind](tmp_path, slots), slice_tokens=24)
    jobs = {}
    for index in (0, 1, 2, 3):
        jobs[index] = together.submit(prompts[index], tokens=lengths[index])
    together.finished(1)
    for index in (4, 5, 6, 7):
        jobs[index] = together.submit(prompts[index], tokens=lengths[index])
    together.finished(7)
    assert [text(jobs[index]) for index in range(8)] == alone
    assert len(set(alone)) > 4, "the model says something"


def test_sampled_contexts_are_isolated_too(open_bench: OpenBench) -> None:
    chosen = Settings(temp=0.8, top_k=20, pen_rep=1.2)
    alone = []
    for seed in range(4):
        single = open_bench(rwkv_runtime(1))
        single.submit("same", tokens=20, settings=chosen, seed=seed)
        alone += [text(job) for job in single.finished(1)]
    bench = open_bench(rwkv_runtime(4))
    jobs = [bench.submit("same", tokens=20, settings=chosen, seed=seed) for seed in range(4)]
    bench.finished(4)
    assert [text(job) for job in jobs] == alone
    assert len(set(alone)) == 4


def test_a_fork_and_its_origin_go_on_without_each_other(open_bench: OpenBench) -> None:
    bench = open_bench(Gated())
    bench.runtime.run_on()  # type: ignore[attr-defined]
    first = bench.submit("go", tokens=2)
    bench.finished(1)
    assert first.arrays is not None
    snapshot = turn(first).snapshot(first.arrays, "")
    before = snapshot.arrays["tokens"].copy()
    forks = [bench.submit("", start=snapshot, tokens=1), bench.submit(" fin?", start=snapshot)]
    bench.finished(2)
    assert [text(job) for job in forks] == ["tick", "fin"]
    assert np.array_equal(snapshot.arrays["tokens"], before)


def test_a_slot_hands_nothing_on_to_its_next_context(open_bench: OpenBench) -> None:
    fresh = open_bench(rwkv_runtime(1))
    fresh.submit("second", tokens=15)
    (expected,) = fresh.finished(1)
    used = open_bench(rwkv_runtime(1))
    used.submit("first, at some length", tokens=15)
    used.finished(1)
    again = used.submit("second", tokens=15)
    used.finished(1)
    assert text(again) == text(expected)
    assert again.arrays is not None
    assert expected.arrays is not None
    for name in expected.arrays:
        assert np.array_equal(again.arrays[name], expected.arrays[name])


def test_a_slot_is_clean_after_a_turn_that_failed_in_it(open_bench: OpenBench) -> None:
    runtime = Gated(slots=1)
    bench = open_bench(runtime)
    bench.submit("go on", tokens=5, deadline=time.monotonic())
    lost = bench.submit("go", tokens=50)
    runtime.step()
    bench.batch.cancel(lost, "drop")
    kept = bench.submit("fin?")
    runtime.run_on()
    bench.finished(3)
    assert text(kept) == "fin"
    assert kept.arrays is not None
    assert kept.arrays["tokens"].tolist() == turn(kept).tokens


# -- the order of steps


def test_a_long_prompt_is_read_in_slices_while_others_decode(open_bench: OpenBench) -> None:
    runtime = Gated()
    bench = open_bench(runtime, slice_tokens=16)
    decoding = bench.submit("go", tokens=40)
    runtime.step()
    bench.submit("x" * 200 + "bye")
    bench.submit("y" * 100 + "bye")
    steps = [runtime.step() for _ in range(20)]
    runtime.run_on()
    bench.finished(3)
    assert text(decoding).startswith("ticktock")
    long = {feed.slot for feeds in steps for feed in feeds} - {decoding.slot}
    assert len(long) == 2, "both prompts get on"
    for feeds in steps:
        long = [feed for feed in feeds if len(feed.tokens) > 1]
        assert sum(len(feed.tokens) for feed in long) <= 16, "no step reads more than one slice"
        assert [len(feed.tokens) for feed in feeds if feed.slot == decoding.slot] == [1], "no stream waits"


def test_many_long_prompts_all_get_on(open_bench: OpenBench) -> None:
    runtime = Gated(slots=7)
    bench = open_bench(runtime, slice_tokens=8)
    for letter in "abcdefg":
        bench.submit(letter * 60)
    runtime.step()
    rounds = [runtime.step() for _ in range(45)]
    assert {feed.slot for feeds in rounds for feed in feeds} == set(range(7)), "none is starved"
    assert all(sum(len(feed.tokens) for feed in feeds) <= 8 for feeds in rounds)
    runtime.run_on()
    assert len(bench.finished(7)) == 7


def test_more_turns_than_slots_wait_for_a_free_one(open_bench: OpenBench) -> None:
    runtime = Gated(slots=2)
    bench = open_bench(runtime)
    jobs = [bench.submit("go", tokens=6 + i) for i in range(7)]
    runtime.run_on()
    assert {id(job) for job in bench.finished(7)} == {id(job) for job in jobs}
    assert [text(job) for job in jobs] == [("ticktock" * 9)[: 4 * (6 + i)] for i in range(7)]
    fed = []
    while not runtime.entered.empty():
        fed.append(runtime.entered.get())
    assert max(len(feeds) for feeds in fed) == 2
    admitted = sorted(jobs, key=lambda job: job.admitted_at)
    assert admitted == jobs, "first come, first served"


def test_the_reader_is_told_all_of_the_text_and_of_long_prompts(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    bench = open_bench(runtime, slice_tokens=64)
    prompt = "z" * (3 * PROGRESS_TOKENS) + "go"
    job = bench.submit(prompt, tokens=5)
    bench.finished(1)
    assert bench.streamed(job) == turn(job).reply == b"tickTocktickTocktick".lower()
    progress = [item.progress for item in bench.news if not item.text]
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})
    assert len(progress) >= 2
    assert all(total == len(prompt) for _, total in progress)
    assert bench.batch.gauges.prefill_tokens == len(prompt)
    assert bench.batch.gauges.tokens == 5


def test_only_what_is_saved_takes_the_state_out(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    bench = open_bench(runtime)
    kept, lost = bench.submit("fin?"), bench.submit("fin?", save="")
    bench.finished(2)
    assert kept.arrays is not None
    assert lost.arrays is None
    assert lost.prompt_at >= lost.admitted_at > 0


# -- ends


@pytest.mark.parametrize(
    ("mode", "reply"), [("keep", "ticktocktick"), ("close", "ticktocktick\n\n~~~(end)~~~\n\n"), ("drop", "")]
)
def test_a_cancel_takes_effect_between_two_steps(open_bench: OpenBench, mode: str, reply: str) -> None:
    runtime = Gated()
    bench = open_bench(runtime)
    job, other = bench.submit("go", tokens=50), bench.submit("go", tokens=3)
    runtime.step()
    runtime.step()
    assert runtime.entered.get(timeout=PATIENCE_S)  # within the third step, behind which the third token stands judged
    bench.batch.cancel(job, mode)
    runtime.run_on()
    bench.finished(2)
    assert text(other) == "ticktocktick"
    if mode == "drop":
        assert isinstance(turn(job).failed, Cancelled)
        assert job.arrays is None
    else:
        assert (text(job), turn(job).stop) == (reply, "cancelled")
        assert job.arrays is not None
        assert job.arrays["tokens"].tolist() == turn(job).tokens


def test_a_cancel_reaches_a_turn_that_waits_for_a_slot(open_bench: OpenBench) -> None:
    runtime = Gated(slots=1)
    bench = open_bench(runtime)
    running, waiting = bench.submit("go", tokens=5), bench.submit("go", tokens=5)
    runtime.step()
    bench.batch.cancel(waiting, "keep")
    runtime.step()
    assert bench.finished(1) == [waiting]
    assert isinstance(turn(waiting).failed, Cancelled)
    runtime.run_on()
    assert bench.finished(1) == [running]
    assert text(running) == "ticktockticktocktick"


def test_a_cancel_after_the_end_changes_nothing(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    bench = open_bench(runtime)
    job = bench.submit("fin?")
    bench.finished(1)
    bench.batch.cancel(job, "drop")
    bench.submit("fin?")
    bench.finished(1)
    assert text(job) == "fin"


def test_a_deadline_ends_a_running_turn_and_a_waiting_one(open_bench: OpenBench) -> None:
    runtime = Gated(slots=1)
    bench = open_bench(runtime)
    running, waiting = bench.submit("go", tokens=None), bench.submit("go", tokens=None)
    runtime.step()
    running.deadline = waiting.deadline = time.monotonic()
    last = bench.submit("fin?")
    runtime.run_on()
    bench.finished(3)
    for job in (running, waiting):
        assert isinstance(turn(job).failed, TimedOut)
        assert job.arrays is None
    assert text(last) == "fin"


def test_a_turn_need_not_have_a_slot_to_run_out_of_time(open_bench: OpenBench) -> None:
    runtime = Gated(slots=1)
    bench = open_bench(runtime)
    bench.submit("go", tokens=None)
    waiting = bench.submit("go", deadline=time.monotonic())
    runtime.step()
    runtime.step()
    assert bench.finished(1) == [waiting]
    assert isinstance(turn(waiting).failed, TimedOut)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), Corrupt("a broken weight"), MemoryError()])
def test_a_model_that_raises_ends_the_turns_of_that_step_and_no_others(open_bench: OpenBench, error: Exception) -> None:
    runtime = Gated(slots=2)
    bench = open_bench(runtime)
    broken = [bench.submit("go"), bench.submit("go")]
    waiting = bench.submit("fin?")
    runtime.step()
    assert runtime.entered.get(timeout=PATIENCE_S)
    runtime.act = fail(error)
    runtime.gate.release()
    bench.finished(2)
    runtime.act = nothing
    runtime.run_on()
    assert bench.finished(1) == [waiting]
    assert text(waiting) == "fin"
    for job in broken:
        failed = turn(job).failed
        assert failed is not None
        assert job.arrays is None
        assert failed is error or failed.__cause__ is error
        assert str(error) in str(failed)


@pytest.mark.parametrize("error", [Corrupt("wrong shapes"), ValueError("wrong shapes")])
def test_a_state_that_cannot_be_loaded_ends_its_turn_alone(open_bench: OpenBench, error: Exception) -> None:
    runtime = Gated()
    runtime.on_load = fail(error)
    bench = open_bench(runtime)
    broken = bench.submit("go")
    assert bench.finished(1) == [broken]
    assert "wrong shapes" in str(turn(broken).failed)
    runtime.on_load = nothing
    runtime.run_on()
    fine = bench.submit("fin?")
    bench.finished(1)
    assert text(fine) == "fin"


def test_a_state_that_cannot_be_saved_ends_its_turn_alone(open_bench: OpenBench) -> None:
    runtime = Gated()
    runtime.run_on()
    runtime.on_save = fail(RuntimeError("the device is gone"))
    bench = open_bench(runtime)
    broken, unsaved = bench.submit("fin?"), bench.submit("fin?", save="")
    bench.finished(2)
    assert isinstance(turn(broken).failed, SsmprovError)
    assert text(unsaved) == "fin"
    runtime.on_save = nothing
    fine = bench.submit("fin?")
    bench.finished(1)
    assert text(fine) == "fin"


def test_a_tokenizer_that_loses_the_fence_ends_its_turn_alone(open_bench: OpenBench) -> None:
    class Forgetful(Gated):
        def tokenize(self, text: str) -> list[int]:
            return super().tokenize(text.replace("~~~(", ""))

    runtime = Forgetful()
    bench = open_bench(runtime)
    broken, fine = bench.submit("go", tokens=50), bench.submit("go", tokens=4)
    runtime.step()
    bench.batch.cancel(broken, "close")
    runtime.run_on()
    bench.finished(2)
    assert "would change the prompt" in str(turn(broken).failed)
    assert broken.arrays is None
    assert text(fine) == "ticktockticktock"


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_overflow_end_their_turn_and_are_not_saved(open_bench: OpenBench, number: float) -> None:
    runtime = Gated()
    runtime.run_on()
    plain = runtime._model

    def model(toy: ToyRuntime, read: bytes) -> Logits:
        row = plain(toy, read)
        if read.endswith(b"ticktock"):
            row[7] = number
        return row

    runtime._model = model
    bench = open_bench(runtime)
    broken, fine = bench.submit("go", tokens=5), bench.submit("fin?")
    bench.finished(2)
    assert "overflowed" in str(turn(broken).failed)
    assert broken.arrays is None
    assert text(fine) == "fin"


def test_stopping_ends_the_thread_with_turns_under_way(open_bench: OpenBench) -> None:
    runtime = Gated()
    bench = open_bench(runtime)
    bench.submit("go", tokens=None)
    runtime.step()
    runtime.run_on()
    bench.batch.stop()
    assert bench.done.empty()
