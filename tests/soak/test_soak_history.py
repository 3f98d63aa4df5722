"""What is recorded is what is read again, also when a client was killed while it wrote."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest

from soak.choices import Choices
from soak.history import Order, Recorder, load
from soak.player import TRIES, Ending, Scribe, play, saves, sure, unanswered
from soak.tap import record
from ssmprov import wire
from ssmprov.errors import Problem

SAVE = Order("ab" * 16, "turn", "talk", "a", {"save": "a", "stream": True}, "<c0.0.1>x", "stream")


def test_a_call_and_its_frames_are_read_as_they_were_written(tmp_path: Path) -> None:
    scribe = Scribe(Recorder(tmp_path / "h.jsonl"), "c0.0")
    link, request_id = scribe.link(), bytes.fromhex(SAVE.id)
    n = scribe.begin(link, SAVE)
    record(scribe.recorder, link, wire.encode(wire.Request(request_id, "turn", have=2)))
    record(scribe.recorder, link, wire.encode(wire.Partial(request_id, 1, offset=2), [b"cd"]))
    record(scribe.recorder, link, wire.encode(wire.Pulse()))
    error = Problem("worker_lost", "w", details={"committed": False})
    record(scribe.recorder, link, wire.encode(wire.Final(request_id, error=error)))
    scribe.end(n, Ending({}, error=error))
    history = load([tmp_path / "h.jsonl"])
    [call] = history.calls
    assert (call.order, call.error, call.again) == (SAVE, error, False)
    frames = history.frames[n]
    assert [frame.kind for frame in frames] == ["sent", "partial", "final"]
    assert (frames[0].have, frames[1].offset, frames[1].text, frames[2].code) == (2, 2, b"cd", "worker_lost")


def test_a_line_that_a_killed_client_left_is_counted_and_its_next_life_writes_on(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    first = Scribe(Recorder(path), "c0.0")
    first.begin(first.link(), SAVE)
    with path.open("ab") as file:
        file.write(b'{"e":"en')
    second = Scribe(Recorder(path), "c0.1")
    second.end(second.begin(second.link(), SAVE), Ending({"object": "o"}, "text"))
    history = load([path])
    assert history.torn == 1
    assert [call.ended < math.inf for call in history.calls] == [False, True]
    assert [len(calls) for calls in history.by_id().values()] == [2]


def test_what_a_former_life_was_not_answered_is_asked_again(tmp_path: Path) -> None:
    scribe = Scribe(Recorder(tmp_path / "h.jsonl"), "c0.0")
    scribe.begin(scribe.link(), SAVE)
    scribe.begin(scribe.link(), Order("cd" * 16, "turn", "talk", "a"))
    scribe.end(scribe.begin(scribe.link(), Order("ef" * 16, "ckpt.rm", "talk", args={"names": ["a"]})), Ending({}))
    left = unanswered(load([tmp_path / "h.jsonl"]).calls)
    assert left == [SAVE]
    step = next(play(Choices(Random(1), "c0", "c0.1", tmp_path), Random(1), left))
    assert (step.order.id, step.order.how, step.order.args) == (SAVE.id, "call", {"save": "a"})


def test_a_player_asks_again_under_the_same_id_when_it_is_not_sure(tmp_path: Path) -> None:
    unsure = Problem("worker_lost", "lost", details={"committed": "unknown"})
    playing = play(Choices(Random(3), "c0", "c0.0", tmp_path), Random(3))
    asked: dict[str, list[Order]] = {}
    step = next(playing)
    for _ in range(500):
        asked.setdefault(step.order.id, []).append(step.order)
        step = playing.send(Ending({}, error=unsure))
    *ended, _ = asked.values()  # the last one may not have been asked often enough yet
    saving = [orders for orders in ended if saves(orders[0])]
    assert {len(orders) for orders in ended if not saves(orders[0])} == {1}
    assert sum(len(orders) == 1 + TRIES for orders in saving) > 0.7 * len(saving)
    assert all(again.prompt == orders[0].prompt for orders in saving for again in orders)


@pytest.mark.parametrize(
    ("problem", "promises"),
    [
        (Problem("conflict", "x"), True),
        (Problem("worker_lost", "x", details={"committed": False}), True),
        (Problem("worker_lost", "x", details={"committed": "unknown"}), False),
        (Problem("worker_lost", "x"), False),
        (Problem("cancelled", "the turn was cancelled: the context is unchanged"), True),
        (Problem("cancelled", "cancelled before it began: nothing has changed, unless an earlier attempt had"), False),
        (Problem("timeout", "the request's time ran out and the broker did not say how it ended"), False),
    ],
)
def test_which_errors_promise_that_nothing_happened(problem: Problem, promises: bool) -> None:
    assert sure(problem) == promises


def test_the_same_seed_asks_the_same(tmp_path: Path) -> None:
    def asked(seed: int) -> list[Order]:
        choices = Choices(Random(seed), "c0.0", "c0.0", tmp_path)
        return [choices.next() for _ in range(200)]

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)
    assert len({order.op for order in asked(1)}) > 9
