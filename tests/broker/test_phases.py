"""The phases of a task: which moves are legal, and the story that tells how it got where it is."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
from rig import Rig, id_of, request, turn

from broker.phases import ENDED, MOVES, SHOWN, STEPS, IllegalMove, Phase
from broker.state import Bounds
from ssmprov import ops, wire
from ssmprov.keys import Role, User

SECRET = "a user's secret"
PHASES: tuple[Phase, ...] = get_args(Phase)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def stories(rig: Rig, prefix: str) -> list[ops.Story]:
    """What a client is told that asks for the status with `story`."""
    caller = rig.caller()
    caller.asks(request(1_000_000, "status", ops.Status(prefix)))
    final, payloads = caller.hears(wire.Final)
    raw, _ = wire.take_result(final, payloads)
    return wire.unpack(raw, ops.StatusResult).story


def steps(rig: Rig, number: int) -> list[tuple[str, str]]:
    [story] = stories(rig, id_of(number).hex())
    return [(step.what, step.worker) for step in story.steps]


@pytest.mark.parametrize(("old", "new"), [*product(PHASES, PHASES)])
def test_only_the_moves_of_the_table_are_made(rig: Rig, old: Phase, new: Phase) -> None:
    rig.hand()
    caller = rig.caller()
    caller.asks(turn(1))
    task = rig.state.tasks[id_of(1)]
    task.phase = old
    if new in MOVES[old]:
        rig.state.enter(task, new)
        assert task.phase == new
    else:
        with pytest.raises(IllegalMove, match=f"from {old} to {new}") as caught:
            rig.state.enter(task, new)
        assert task.phase == old
        assert "accepted, attempt 1" in str(caught.value)
        assert id_of(1).hex() in str(caught.value)


def test_an_illegal_move_is_answered_to_nobody_and_ends_the_broker(rig: Rig) -> None:
    """Its tables cannot be trusted any more; after a restart it takes the work up again."""
    hand, caller = rig.hand(), rig.caller()
    caller.asks(turn(1))
    rig.state.tasks[id_of(1)].phase = "answered"
    with pytest.raises(IllegalMove, match="from answered to answered"):
        hand.answers(1)


def test_the_story_of_a_turn_that_is_given_to_two_workers_and_settled(rig: Rig) -> None:
    first, caller = rig.hand(), rig.caller()
    caller.asks(turn(1, "", "draft"))
    first.streams(1, 1, 0, b"text")
    first.is_lost()
    rig.hand("talk/1")
    told = steps(rig, 1)
    assert told[:4] == [
        ("accepted, attempt 1", ""),
        ("running", "talk/0"),
        ("its worker sends the first piece", "talk/0"),
        ("its worker was lost: its connection broke", "talk/0"),
    ]
    what, _ = told[4]
    assert what.startswith("settling: settle ")
    settle = what.split()[2]
    [story] = stories(rig, settle)
    assert (story.op, [step.what for step in story.steps]) == ("settle", ["made by the broker", "ready", "running"])


def test_the_story_of_a_waiting_request_tells_for_what(rig: Rig) -> None:
    hand, caller = rig.hand(slots=1), rig.caller()
    for number in (1, 2):
        caller.asks(turn(number, "same", "same"))
    caller.asks(turn(3))
    assert steps(rig, 2) == [("accepted, attempt 1", "")]
    assert steps(rig, 3) == [("accepted, attempt 1", ""), ("ready", "")]
    rig.tick(1.5)
    [story] = stories(rig, id_of(3).hex())
    assert [step.ago_s for step in story.steps] == [1.5, 1.5]
    caller.say(wire.Cancel(id_of(3)))
    hand.answers(1)
    assert steps(rig, 1)[-1] == ("answered: done", "talk/0")
    assert steps(rig, 3)[-2:] == [("its client cancels it", ""), ("answered: cancelled", "")]


def test_a_story_keeps_its_last_steps(rig: Rig) -> None:
    rig.hand()
    caller = rig.caller()
    for attempt in range(1, 2 * STEPS):
        caller.asks(turn(1, attempt=attempt))
    told = steps(rig, 1)
    assert len(told) == STEPS
    assert told[-1] == (f"asked for again, attempt {2 * STEPS - 1}", "talk/0")


def test_the_last_ended_stories_are_kept(rig: Rig) -> None:
    hand, caller = rig.hand(), rig.caller()
    for number in range(1, ENDED + 20):
        caller.asks(turn(number))
        hand.answers(number)
    assert len(rig.state.ended) == ENDED
    assert stories(rig, id_of(1).hex()) == []
    assert steps(rig, ENDED + 19)[-1] == ("answered: done", "talk/0")


def test_a_prefix_shows_the_newest_of_those_that_begin_with_it() -> None:
    rig = Rig(Bounds(queue_per_client=100))
    hand, caller = rig.hand(slots=2 * SHOWN), rig.caller()
    for number in range(1, SHOWN + 3):
        caller.asks(turn(number))
    hand.answers(SHOWN + 2)
    asked = range(SHOWN + 1, 1, -1)
    assert [story.id for story in stories(rig, id_of(1).hex()[:20].upper())] == [id_of(n).hex() for n in asked]
    assert stories(rig, "") == []
    assert stories(rig, "no hex") == []


def test_no_text_of_a_user_is_in_a_story_or_in_the_log() -> None:
    rig = Rig(debug=True)
    hand, caller = rig.hand(), rig.caller()
    caller.asks(turn(1, "my-context", "my-save"), SECRET.encode())
    hand.streams(1, 1, 0, SECRET.encode())
    hand.answers(1, SECRET.encode(), result={"stop": SECRET})
    told = repr(stories(rig, id_of(1).hex())) + "".join(rig.log)
    assert "its worker sends the first piece" in told
    assert not any(private in told for private in (SECRET, "my-context", "my-save"))


def test_each_step_is_in_the_debug_log() -> None:
    rig = Rig(debug=True)
    hand, caller = rig.hand(), rig.caller()
    caller.asks(turn(1))
    hand.answers(1)
    assert rig.log[-3:] == [
        f"turn {id_of(1).hex()}: {what}"
        for what in ("accepted, attempt 1", "running (talk/0)", "answered: done (talk/0)")
    ]


def test_without_it_no_step_is_logged(rig: Rig) -> None:
    hand, caller = rig.hand(), rig.caller()
    before = list(rig.log)
    caller.asks(turn(1))
    hand.answers(1)
    assert rig.log == before


def test_who_may_not_read_is_told_no_story(rig: Rig) -> None:
    helper = User("helper", "helper" * 8, Role.WORKER)
    caller = rig.caller(user=helper)
    caller.asks(request(7, "status", ops.Status("00")))
    assert caller.error(7).startswith("refused")
