"""What the broker does, one situation at a time; times are seconds that only the test lets pass."""

from __future__ import annotations

from typing import Any

import pytest
from rig import CARD, IDENTITY, Caller, Hand, Peer, Rig, id_of, request, turn

from broker.deadlines import LATE_S
from broker.events import Disconnected, Received, Tick
from broker.leases import MAX_TRIES, SILENT_S
from broker.lost_clients import GONE_S
from broker.machine import DRAIN_S, MAX_CREDIT, MAX_UNANSWERED, RETURN_S
from broker.placement import MAX_PROBES, MAX_STATE_OPS
from broker.state import ABSENT_S, MAX_ARGS, START_GRACE_S, Bounds
from broker.status import report
from ssmprov import ops, wire
from ssmprov.errors import Problem
from ssmprov.keys import LOCAL, Role, User


@pytest.fixture
def young() -> Rig:
    """A broker that has just started."""
    return Rig()


@pytest.fixture
def rig(young: Rig) -> Rig:
    """A broker that has been there for a while."""
    young.wait(10.0)
    return young


def workers(rig: Rig, count: int, **fields: Any) -> list[Hand]:
    return [rig.hand(f"talk/{index}", **fields) for index in range(count)]


def running(number: int, *, save: str = "", attempt: int = 1, client: Caller | None = None) -> wire.Running:
    return wire.Running(id=id_of(number), attempt=attempt, client=client.id if client else wire.NOBODY, save=save)


class TestTheWayOfATurn:
    def test_its_text_streams_to_its_client_and_its_answer_ends_it(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a", credit=4), b"hello")
        got, payloads = hand.hears(wire.Request)
        assert (got.id, got.client, got.epoch, payloads) == (id_of(1), caller.id, hand.epoch, [b"hello"])
        hand.streams(1, 1, 0, b"one ")
        hand.streams(1, 2, 4, b"two ")
        assert caller.hears(wire.Accepted)[0].id == id_of(1)
        assert [(p.seq, p.offset) for p in caller.inbox.each(wire.Partial)] == [(1, 0), (2, 4)]
        hand.answers(1, b"three", offset=8, result={"stop": "end"})
        final, text = caller.answer(1)
        assert (final.offset, final.seq, text) == (8, 2, b"three")
        assert wire.unpack(final.result, ops.TurnResult).stop == "end"
        rig.assert_idle()

    def test_the_ttl_that_is_left_goes_to_the_worker(self, young: Rig) -> None:
        caller = young.caller()
        caller.asks(turn(1, ttl_ms=9000))
        young.wait(2.0)
        assert young.hand().gets(1).ttl_ms == pytest.approx(7000, abs=2)

    def test_credit_reaches_the_worker_with_the_request_or_after_it(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        caller.asks(turn(1, credit=1))
        caller.asks(turn(2, credit=2))
        caller.say(wire.Credit(id_of(2), 5))
        hand.gets(1)
        caller.say(wire.Credit(id_of(1), 3))
        assert hand.hears(wire.Credit)[0] == wire.Credit(id_of(1), 3)
        hand.answers(1)
        assert hand.gets(2).credit == 7

    def test_no_sum_of_credits_is_more_than_a_worker_takes(self, young: Rig) -> None:
        caller = young.caller()
        caller.asks(turn(1, credit=MAX_CREDIT))
        caller.say(wire.Credit(id_of(1), MAX_CREDIT))
        assert young.hand().gets(1).credit == MAX_CREDIT

    def test_progress_of_the_prompt_is_passed_on(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=2))
        hand.say(wire.Partial(id_of(1), 1, 1, hand.epoch, done=3, total=9))
        assert (caller.hears(wire.Partial)[0].done, len(caller.inbox.messages)) == (3, 0)

    def test_every_payload_of_a_partial_counts(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=2))
        hand.say(wire.Partial(id_of(1), 1, 1, hand.epoch), [b"one ", b"two "])
        hand.answers(1, b"three", offset=8)
        caller.again().asks(turn(1, attempt=2))
        assert rig.state.answers.find(id_of(1), caller.id)[1] == [b"one two three"]

    def test_a_file_goes_through_in_chunks_each_way(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(request(1, "ckpt.export", context="a", credit=2))
        caller.asks(request(2, "ckpt.import", ops.Import("b", 4)))
        hand.say(wire.Chunk(id=id_of(1), seq=1, attempt=1, epoch=hand.epoch, last=True), [b"file"])
        assert caller.hears(wire.Chunk)[1] == [b"file"]
        hand.say(wire.Credit(id_of(2), 8))
        assert caller.hears(wire.Credit)[0].n == 8
        caller.say(wire.Chunk(id=id_of(2), seq=1, last=True), [b"file"])
        chunk, payloads = hand.hears(wire.Chunk)
        assert (chunk.epoch, payloads) == (hand.epoch, [b"file"])
        hand.answers(1)
        hand.answers(2)
        assert len(caller.heard(wire.Final)) == 2
        rig.assert_idle()

    def test_without_a_model_the_only_one_is_meant(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, model=""))
        assert hand.gets(1).model == "talk"
        rig.hand("other/0", model=wire.ModelCard(name="other"))
        caller.asks(turn(2, model=""))
        assert caller.error(2).startswith("bad_request: several models are served")

    def test_without_a_model_the_default_is_meant_even_before_it_is_served(self) -> None:
        rig = Rig(default="late")
        other, caller = rig.hand("other/0", model=wire.ModelCard(name="other")), rig.caller()
        caller.asks(turn(1, model=""))
        late = rig.hand("late/0", model=wire.ModelCard(name="late"))
        assert late.gets(1).model == "late"
        assert other.heard(wire.Request) == []

    def test_without_any_model_a_request_for_the_only_one_may_be_repeated(self, rig: Rig) -> None:
        caller = rig.caller()
        caller.asks(turn(1, model=""))
        final, _ = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.retry_ms) == ("unavailable", 1000)

    def test_status_tells_what_waits_and_what_runs(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        for number in (1, 2, 3):
            caller.asks(turn(number))
        caller.asks(request(9, "status"))
        final, _ = caller.answer(9)
        status = wire.unpack(final.result, ops.StatusResult)
        assert (status.broker.queued, status.broker.running, status.broker.clients) == (2, 1, 1)
        assert [(m.name, m.workers, m.queued) for m in status.models] == [("talk", 1, 2)]
        assert [(w.name, w.running, w.slots, w.epoch) for w in status.workers] == [("talk/0", 1, 1, hand.epoch)]

    def test_a_workers_rate_counts_the_tokens_between_its_pulses(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=1000))
        for step in range(100):
            rig.now += 0.19
            hand.streams(1, step + 1, step, b"x")
            rig.now += 0.01
            hand.say(wire.Pulse(progress=step, tokens=20 * step))
        rate, _ = rig.state.models["talk"].workers["talk/0"].rates
        assert rate == pytest.approx(100, rel=0.05)


class TestPlacement:
    def test_a_turn_goes_to_the_worker_that_holds_its_context_hot(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(turn(2, "b", "b"))
        first.gets(1)
        second.gets(2)
        first.answers(1, hot=["a"])
        second.answers(2, hot=["b"])
        caller.asks(turn(3, "b"))
        second.gets(3)

    def test_else_to_the_least_loaded_one(self, rig: Rig) -> None:
        small, large = rig.hand("talk/0", slots=2), rig.hand("talk/1", slots=8)
        caller = rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2))
        caller.asks(turn(3))
        caller.asks(turn(4))
        small.gets(1)
        for number in (2, 3, 4):
            large.gets(number)

    def test_a_worker_takes_no_more_turns_than_it_has_slots(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=2), rig.caller()
        for number in range(1, 5):
            caller.asks(turn(number))
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(1), id_of(2)]
        hand.answers(2)
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(3)]

    def test_operations_on_states_take_no_slot_but_have_a_bound_of_their_own(self) -> None:
        rig = Rig(Bounds(queue_per_client=1000))
        hand, caller = rig.hand(slots=1), rig.caller()
        caller.asks(turn(1))
        for number in range(2, 4 + MAX_STATE_OPS):
            caller.asks(request(number, "ckpt.ls"))
        assert len(hand.heard(wire.Request)) == 1 + MAX_STATE_OPS

    def test_a_worker_gets_few_probes_at_once_and_they_hold_nothing_else_up(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        for number in range(1, 3 + MAX_PROBES):
            caller.asks(request(number, "probe", context="a"))
        caller.asks(turn(50, "a", "a"))
        caller.asks(request(51, "ckpt.ls"))
        given = [id_of(number) for number in range(1, 1 + MAX_PROBES)]
        assert [m.id for m in hand.heard(wire.Request)] == [*given, id_of(50), id_of(51)]
        hand.answers(1)
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(1 + MAX_PROBES)]

    def test_probes_that_wait_hold_no_other_operation_up(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        hand.is_lost()
        for number in range(1, 3 + MAX_PROBES):
            caller.asks(request(number, "probe"))
        caller.asks(request(51, "ckpt.ls"))
        given = [m.id for m in rig.hand().heard(wire.Request)]
        assert given == [*(id_of(number) for number in range(1, 1 + MAX_PROBES)), id_of(51)]

    def test_a_probe_of_a_lost_worker_is_given_to_another(self, rig: Rig) -> None:
        first, caller = rig.hand("talk/0"), rig.caller()
        caller.asks(request(1, "probe", context="a"), b"text")
        first.gets(1)
        second = rig.hand("talk/1")
        first.is_lost()
        second.gets(1)
        second.answers(1)
        assert caller.answer(1)[0].error is None

    def test_a_pinned_context_waits_for_its_worker(self, rig: Rig) -> None:
        first = rig.hand("talk/0", pins={"a": "talk/1"})
        caller = rig.caller()
        caller.asks(turn(1, "a"))
        caller.asks(turn(2, "b"))
        assert [m.id for m in first.heard(wire.Request)] == [id_of(2)]
        rig.wait(ABSENT_S / 2)
        rig.hand("talk/1", pins={"a": "talk/1"}).gets(1)

    def test_and_errs_with_a_sentence_when_it_does_not_come(self, rig: Rig) -> None:
        rig.hand("talk/0", pins={"a": "talk/1"})
        caller = rig.caller()
        caller.asks(turn(1, "a"))
        rig.wait(ABSENT_S + 0.2)
        assert caller.error(1) == (
            "unavailable: a is pinned to talk/1, which is not running: start it, or run `ssmprov ckpt move a WORKER`"
        )
        rig.assert_idle()

    def test_the_absence_of_its_worker_counts_from_when_it_left(self, rig: Rig) -> None:
        pins = {"a": "talk/1"}
        rig.hand("talk/0", pins=pins)
        pinned, caller = rig.hand("talk/1", slots=1, pins=pins), rig.caller()
        caller.asks(turn(1, "a"))
        caller.asks(turn(2, "a"))
        rig.wait(ABSENT_S - 1)
        pinned.is_lost()
        rig.wait(ABSENT_S / 2)
        rig.hand("talk/1", pins=pins).gets(2)

    def test_of_two_workers_that_come_back_the_later_knows_the_pins_better(self, rig: Rig) -> None:
        """The one may have moved a context after the other read the pins, and its answer went down with a broker."""
        rig.hand("talk/0")
        rig.hand("talk/1", pins={"a": "talk/1"})
        assert rig.state.models["talk"].pins == {"a": "talk/1"}

    def test_but_no_offer_undoes_what_the_broker_has_seen(self, rig: Rig) -> None:
        first, caller = rig.hand("talk/0"), rig.caller()
        caller.asks(request(1, "ckpt.move", ops.Move("w0"), context="a"))
        first.answers(1, pins={"a": "talk/0"})
        rig.hand("talk/1", pins={})
        assert rig.state.models["talk"].pins == {"a": "talk/0"}

    def test_a_move_pins_and_a_move_to_nowhere_takes_the_pin_away(self, rig: Rig) -> None:
        _, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.move", ops.Move("w1"), context="a"))
        assert wire.unpack(second.gets(1).args, ops.Move).worker == "talk/1"
        second.answers(1, pins={"a": "talk/1"}, hot=["a"])
        caller.asks(turn(2, "a"))
        second.gets(2)
        second.answers(2)
        caller.asks(request(3, "ckpt.move", ops.Move(""), context="a"))
        second.gets(3)
        second.answers(3, pins={"a": ""})
        assert rig.state.models["talk"].pins == {}

    def test_a_move_to_an_unknown_worker_names_the_nearest(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.asks(request(1, "ckpt.move", ops.Move("talk/7"), context="a"))
        assert caller.error(1) == "not_found: there is no worker 'talk/7' of talk; did you mean talk/0?"


class TestForks:
    def test_on_names_workers_in_turn_and_each_copy_is_warmed_there(self, rig: Rig) -> None:
        hands = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b", "c", "d"], on=["w1", "talk/0"]), context="a"))
        fork = wire.unpack(hands[0].gets(1).args, ops.Fork)
        assert (fork.on, fork.spread) == (["talk/1", "talk/0", "talk/1"], False)
        pins = dict(zip(fork.targets, fork.on, strict=True))
        hands[0].answers(1, pins=pins)
        assert rig.state.models["talk"].pins == pins
        warmed = {m.context: hand.name for hand in hands for m in hand.inbox.each(wire.Request) if m.op == "warm"}
        assert warmed == pins

    def test_spread_takes_every_worker_in_turn(self, rig: Rig) -> None:
        hands = workers(rig, 3)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b", "c", "d", "e"], spread=True), context="a"))
        assert wire.unpack(hands[0].gets(1).args, ops.Fork).on == ["talk/0", "talk/1", "talk/2", "talk/0"]

    def test_a_turn_on_a_copy_waits_until_it_is_warm_only_where_it_saves(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"], on=["0"]), context="a"))
        hand.gets(1)
        hand.answers(1, pins={"b": "talk/0"})
        warm, _ = hand.hears(wire.Request)
        assert warm.op == "warm"
        caller.asks(turn(2, "b"))
        caller.asks(turn(3, "b", "b"))
        hand.gets(2)
        hand.answers(2)
        assert not list(hand.inbox.each(wire.Request))
        hand.answers(warm.id)
        hand.gets(3)

    def test_a_worker_lost_while_it_warms_gives_the_name_free(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"], on=["1"]), context="a"))
        first.gets(1)
        first.answers(1, pins={"b": "talk/1"})
        assert second.hears(wire.Request)[0].op == "warm"
        second.is_lost()
        rig.assert_idle()
        caller.asks(turn(2, "", "b"))
        first.gets(2)

    def test_a_fork_to_a_worker_that_vanished_leaves_no_warming_behind(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b", "c"], on=["1", "0"]), context="a"))
        second.is_lost()
        first.gets(1)
        first.answers(1, pins={"b": "talk/1", "c": "talk/0"})
        assert [m.context for m in first.heard(wire.Request)] == ["c"]

    def test_a_warming_that_waits_ends_with_its_worker(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"], on=["1"]), context="a"))
        second.say(wire.Bye("draining"))
        rig.hand("talk/1")
        caller.asks(turn(2, "", "b"))
        first.gets(1)
        rig.hands[-1].say(wire.Bye("draining"))
        first.answers(1, pins={"b": "talk/1"})
        first.gets(2)

    def test_a_fork_names_a_committed_object_since_it_queues_behind_the_turns_of_its_name(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(request(2, "ckpt.fork", ops.Fork(["b"]), context="a"))
        caller.asks(turn(3, "a", "a"))
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(1)]
        hand.answers(1)
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(2)]
        hand.answers(2)
        assert [m.id for m in hand.heard(wire.Request)] == [id_of(3)]


class TestAfterTheStart:
    def test_a_request_for_an_unknown_model_waits_for_its_workers(self, young: Rig) -> None:
        caller = young.caller()
        caller.asks(turn(1))
        young.wait(START_GRACE_S - 0.5)
        young.hand().gets(1)

    def test_but_not_for_long(self, young: Rig) -> None:
        young.hand("walk/0", model=wire.ModelCard(name="walk"))
        caller = young.caller()
        caller.asks(turn(1))
        young.wait(START_GRACE_S + 0.2)
        assert caller.error(1) == "not_found: no model 'talk' is served; did you mean walk?"
        young.assert_idle()
        caller.asks(turn(2))
        assert caller.error(2) == "not_found: no model 'talk' is served; did you mean walk?"

    def test_a_fork_that_waited_names_its_workers_when_they_are_there(self, young: Rig) -> None:
        """Its arguments grow by that, and what waits is still counted as it came."""
        caller = young.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"], spread=True), context="a"))
        hand = young.hand()
        assert wire.unpack(hand.gets(1).args, ops.Fork).on == ["talk/0"]
        assert young.state.queued_bytes == 0
        hand.answers(1)
        young.assert_idle()

    def test_a_fork_that_waited_for_a_worker_that_did_not_come_errs(self, young: Rig) -> None:
        caller = young.caller()
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"], on=["5"]), context="a"))
        young.hand()
        assert caller.error(1).startswith("not_found: there is no worker '5'")
        young.assert_idle()


class TestTimes:
    def test_a_request_whose_time_runs_out_while_it_waits_changed_nothing(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2, "a", "a", ttl_ms=2000))
        caller.asks(turn(3, "a", "a", ttl_ms=60_000))
        rig.wait(2.1)
        assert caller.error(2) == (
            "timeout: the request's time ran out while it waited: nothing was read and nothing has changed"
        )
        hand.gets(1)
        hand.answers(1)
        hand.gets(3)

    def test_without_any_worker_a_request_waits_a_while(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        hand.is_lost()
        rig.wait(100.0)
        for number in (1, 2):
            caller.asks(turn(number, "a", "a"))
        rig.wait(ABSENT_S - 1)
        assert not caller.heard(wire.Final)
        rig.wait(1.2)
        assert caller.error(1) == "unavailable: no worker of talk has come back: see `ssmprov status`"
        assert caller.error(2) == "unavailable: no worker of talk has come back: see `ssmprov status`"

    def test_a_hung_worker_is_ended_and_its_turn_is_lost(self, rig: Rig) -> None:
        hand, caller = rig.hand(stall_ms=2000), rig.caller()
        caller.asks(turn(1))
        rig.wait(1.5, progress=1)
        rig.wait(1.8, progress=0)
        assert not rig.killed
        rig.wait(0.5, progress=0)
        assert [(kill.pid, kill.started, kill.host) for kill in rig.killed] == [(hand.offer.pid, 1, "here")]
        assert "worker_lost: worker talk/0 was lost during the turn (no progress for 2 s)" in caller.error(1)

    def test_a_worker_that_lets_a_turns_deadline_pass_hangs(self, rig: Rig) -> None:
        _, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, ttl_ms=1000))
        rig.wait(1.0 + LATE_S - 0.5, progress=0)
        assert not rig.killed
        rig.wait(1.0, progress=0)
        assert rig.killed
        assert caller.error(1).startswith("worker_lost")

    def test_a_transfer_whose_reader_is_slow_is_no_hang(self, rig: Rig) -> None:
        hand, caller = rig.hand(stall_ms=2000), rig.caller()
        caller.asks(request(1, "ckpt.export", context="a", credit=1))
        rig.wait(10.0, progress=0)
        assert not rig.killed
        hand.answers(1)
        caller.answer(1)

    def test_an_operation_that_does_not_end_is_answered_after_its_deadline(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.asks(request(1, "ckpt.gc", ttl_ms=1000))
        rig.wait(1.0 + LATE_S + 0.2)
        assert caller.error(1) == "timeout: ckpt.gc did not end in time; it may still take effect"
        rig.assert_idle()

    def test_and_of_one_that_only_reads_it_is_said_that_nothing_changes(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.asks(request(1, "probe", ttl_ms=1000))
        rig.wait(1.0 + LATE_S + 0.2)
        assert caller.error(1) == "timeout: probe did not end in time; it changes nothing"
        rig.assert_idle()

    def test_a_silent_worker_is_ended(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.pulses = False
        rig.wait(SILENT_S - 0.2)
        assert not rig.killed
        rig.wait(0.4)
        assert rig.killed
        assert "it sent nothing" in caller.error(1)

    def test_for_a_stall_of_the_brokers_own_nobody_is_judged(self, rig: Rig) -> None:
        rig.hand(stall_ms=2000)
        caller = rig.caller()
        caller.asks(turn(1))
        rig.tick(60.0)
        rig.wait(1.0)
        assert not rig.killed
        assert not caller.heard(wire.Final)

    def test_nor_for_a_connection_that_broke_meanwhile_if_it_comes_back(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        rig.now += 60.0
        hand.is_lost()
        rig.tick(0.0)
        rig.wait(RETURN_S / 2)
        hand = hand.again(running(1, save="a"))
        hand.answers(1, b"one")
        assert caller.answer(1)[1] == b"one"
        rig.wait(2 * RETURN_S)
        assert not rig.killed

    def test_and_one_that_does_not_come_back_is_lost_then(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        rig.now += 60.0
        rig.tick(0.0)
        hand.is_lost()
        rig.wait(RETURN_S - 0.3)
        assert not rig.killed
        rig.wait(0.6)
        assert rig.killed
        assert "its connection broke" in caller.error(1)

    def test_nor_is_anybody_forgiven_for_more_than_the_stall(self, rig: Rig) -> None:
        hand = rig.hand()
        rig.now += 60.0
        hand.pulse()
        rig.tick(0.0)
        hand.pulses = False
        rig.wait(SILENT_S + 0.2)
        assert rig.killed

    def test_after_a_disconnection_everybody_is_asked_at_the_next_tick(self, rig: Rig) -> None:
        first, second = rig.caller(), rig.caller()
        rig.tick()
        for caller in (first, second):
            caller.heard(wire.Pulse)
        rig.tick()
        assert [caller.heard(wire.Pulse) for caller in (first, second)] == [[], []]
        rig.handle(Disconnected(rig.now))
        rig.tick()
        assert [len(caller.heard(wire.Pulse)) for caller in (first, second)] == [1, 1]

    def test_an_idle_client_that_never_answers_a_pulse_is_forgotten(self, rig: Rig) -> None:
        rig.caller()
        quiet = rig.caller()
        for _ in range(10 * MAX_UNANSWERED):
            rig.handle(Disconnected(rig.now))
            rig.tick()
        assert quiet.route in rig.state.peers
        for _ in range(MAX_UNANSWERED + 1):
            rig.tick(31.0)
        assert quiet.route not in rig.state.peers
        rig.tick()
        assert not rig.state.clients


class TestLeases:
    def test_a_second_process_under_a_leased_name_is_refused_for_now(self, rig: Rig) -> None:
        first, second = rig.hand(pid=5), rig.hand(pid=6)
        refused, _ = second.hears(wire.Bye)
        assert refused.error is not None
        assert (refused.error.code, refused.error.retry_ms) == ("refused", 200)
        assert "leased to process 5" in refused.reason
        assert second.epoch == 0
        first.is_lost()
        assert rig.hand(pid=6).epoch == first.epoch + 1

    def test_an_epoch_never_falls(self, rig: Rig) -> None:
        assert rig.hand(epoch=7).epoch == 8

    def test_another_store_is_refused(self, rig: Rig) -> None:
        rig.hand()
        refused, _ = rig.hand("talk/1", store="elsewhere").hears(wire.Bye)
        assert refused.error is not None
        assert (refused.error.code, refused.error.retry_ms) == ("refused", 0)
        assert "another checkpoint store" in refused.reason

    def test_other_weights_under_the_name_are_refused(self, rig: Rig) -> None:
        rig.hand()
        refused, _ = rig.hand(
            "talk/1", model=wire.ModelCard(name="talk", runtime="scripted", fingerprint="e" * 64)
        ).hears(wire.Bye)
        assert refused.error is not None
        assert refused.error.code == "wrong_model"

    def test_when_all_workers_are_gone_a_model_may_change(self, rig: Rig) -> None:
        rig.hand(pins={"a": "talk/0"}).is_lost()
        assert rig.hand("talk/0", store="elsewhere").epoch == 2
        assert rig.state.models["talk"].pins == {}

    def test_but_not_while_a_lost_turn_is_unsettled(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        second.is_lost()
        refused, _ = rig.hand("talk/0", store="elsewhere").hears(wire.Bye)
        assert "another checkpoint store" in refused.reason

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("talk", {}),
            ("walk/0", {}),
            ("talk/-1", {}),
            ("talk/0", {"running": [wire.Running(id=id_of(1), context="../x")]}),
            ("talk/0", {"running": [wire.Running(id=id_of(1), save="a b")]}),
        ],
    )
    def test_a_malformed_registration_is_refused_and_changes_nothing(
        self, rig: Rig, name: str, fields: dict[str, Any]
    ) -> None:
        refused, _ = rig.hand(name, **fields).hears(wire.Bye)
        assert refused.error is not None
        assert refused.error.code in ("bad_request", "refused")
        assert not rig.state.models

    def test_so_are_pins_that_are_none(self, rig: Rig) -> None:
        peer = rig.peer()
        peer.say(wire.Hello(id_of(99), "worker"))
        for payload in (b"\xff", b"\x93\x01\x02\x03", b"\x81\x01\x02", b"\x81\xa1a"):
            peer.say(wire.Register(worker="talk/0", model=CARD), [payload])
            refused, _ = peer.hears(wire.Bye)
            assert refused.error is not None
            assert refused.error.code == "bad_request"
        assert not rig.state.models

    def test_a_connection_is_one_worker(self, rig: Rig) -> None:
        hand = rig.hand()
        hand.say(wire.Register(worker="talk/1", model=CARD, store="store"))
        refused, _ = hand.hears(wire.Bye)
        assert "already belongs to talk/0" in refused.reason
        assert list(rig.state.models["talk"].workers) == ["talk/0"]

    def test_messages_of_an_old_epoch_or_attempt_change_nothing(self, rig: Rig) -> None:
        hand, caller = rig.hand(epoch=3), rig.caller()
        caller.asks(turn(1, credit=9, attempt=2))
        hand.streams(1, 1, 0, b"x", attempt=2, epoch=3)
        hand.answers(1, attempt=2, epoch=3)
        hand.streams(1, 2, 1, b"x", attempt=2)
        hand.streams(1, 1, 0, b"x", attempt=1)
        assert not list(caller.inbox.each(wire.Partial))
        assert not list(caller.inbox.each(wire.Final))
        assert rig.state.counters.stale == 4


class TestALostWorker:
    def test_its_unsaved_turn_is_lost_with_the_last_seq(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", credit=9))
        hand.streams(1, 1, 0, b"one")
        hand.streams(1, 2, 3, b"two")
        hand.is_lost()
        final, text = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.worker) == ("worker_lost", "talk/0")
        assert (final.error.details, final.seq, final.offset, text) == ({"seq": 2}, 2, 6, b"")
        assert rig.killed
        rig.assert_idle()

    def test_its_saving_turn_is_settled_by_another_worker_which_finds_it_committed(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a", credit=9))
        first.gets(1)
        first.streams(1, 1, 0, b"one")
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        args = wire.unpack(settle.args, ops.Settle)
        assert (settle.op, args.request, args.save) == ("settle", id_of(1), "a")
        second.answers(settle.id, b"one two", result=ops.Settled(True, wire.pack({"stop": "end"}), "ab" * 32))
        final, text = caller.answer(1)
        assert (final.error, final.offset, text) == (None, 3, b" two")
        assert wire.unpack(final.result, ops.TurnResult).stop == "end"
        rig.assert_idle()

    def test_or_decides_that_it_is_lost(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(turn(2, "a", "a"))
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        assert not list(second.inbox.each(wire.Request)), "the name is held until the turn is settled"
        second.answers(settle.id, result=ops.Settled(False, head="ab" * 32))
        final, _ = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.details["committed"]) == ("worker_lost", False)
        assert final.error.details["head"] == "ab" * 32
        second.gets(2)

    def test_with_no_worker_left_the_client_hears_at_once_and_the_next_worker_settles_first(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(turn(2, "a", "a"))
        hand.is_lost()
        rig.tick()
        final, _ = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.details["committed"]) == ("worker_lost", "unknown")
        rig.wait(ABSENT_S / 2)
        hand = rig.hand(slots=1)
        settle, _ = hand.hears(wire.Request)
        assert settle.op == "settle"
        hand.gets(2)
        hand.answers(settle.id, result=ops.Settled(True))
        hand.answers(2)
        assert [final.id for final in caller.heard(wire.Final)] == [id_of(2)]
        rig.assert_idle()

    def test_whoever_asks_again_then_is_not_told_again_that_nobody_knows(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        hand.is_lost()
        rig.tick()
        caller.answer(1)
        hand = rig.hand()
        settle, _ = hand.hears(wire.Request)
        caller.asks(turn(1, "a", "a"))
        hand.gets(1)
        hand.answers(settle.id, result=ops.Settled(True))
        hand.answers(1, b"one")
        final, text = caller.answer(1)
        assert (final.error, text) == (None, b"one")
        rig.assert_idle()

    def test_even_when_the_next_worker_is_long_in_coming(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        hand.is_lost()
        rig.wait(3 * ABSENT_S)
        assert rig.hand().hears(wire.Request)[0].op == "settle"

    def test_a_settling_worker_that_is_lost_too_hands_the_question_on(self, rig: Rig) -> None:
        first, second, third = workers(rig, 3)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        assert second.hears(wire.Request)[0].op == "settle"
        second.is_lost()
        settle, _ = third.hears(wire.Request)
        third.answers(settle.id, result=ops.Settled(False))
        assert caller.error(1).startswith("worker_lost")
        rig.assert_idle()

    def test_and_when_that_was_the_last_the_client_hears_so(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        second.is_lost()
        rig.tick()
        final, _ = caller.answer(1)
        assert final.error is not None
        assert final.error.details["committed"] == "unknown"

    def test_when_the_last_one_leaves_before_it_took_the_question_the_client_hears_so(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        second.say(wire.Bye("draining"))
        first.is_lost()
        rig.tick()
        assert caller.error(1).startswith("worker_lost")

    def test_a_question_that_ends_worker_after_worker_is_dropped(self, rig: Rig) -> None:
        hands = workers(rig, 2 + MAX_TRIES)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        for hand in hands[: 1 + MAX_TRIES]:
            hand.hears(wire.Request)
            hand.is_lost()
        final, _ = caller.answer(1)
        assert final.error is not None
        assert final.error.details["committed"] == "unknown"
        rig.assert_idle()

    def test_a_committed_reply_that_is_not_the_streamed_one_is_not_told_as_if_it_were(self, rig: Rig) -> None:
        """As when a broker's restart had two workers do the same turn."""
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a", credit=9))
        first.streams(1, 1, 0, b"one")
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        second.answers(settle.id, b"two", result=ops.Settled(True, wire.pack({"stop": "end"})))
        final, _ = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.details["committed"]) == ("worker_lost", True)

    @pytest.mark.parametrize("answer", [{"error": Problem("no_space", "the disk is full")}, {"result": [1, 2]}])
    def test_an_answer_that_decides_nothing_leaves_it_unknown(self, rig: Rig, answer: dict[str, Any]) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        second.answers(settle.id, **answer)
        final, _ = caller.answer(1)
        assert final.error is not None
        assert (final.error.code, final.error.details["committed"]) == ("worker_lost", "unknown")
        rig.assert_idle()

    def test_state_operations_are_given_to_another_worker(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.rm", ops.Remove(["a"])))
        first.gets(1)
        first.is_lost()
        second.gets(1)
        second.answers(1)
        assert caller.answer(1)[0].error is None
        rig.assert_idle()

    def test_one_that_may_have_begun_is_not_said_to_have_changed_nothing(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(request(1, "ckpt.rm", ops.Remove(["a"])))
        hand.is_lost()
        caller.say(wire.Cancel(id_of(1), "drop"))
        assert caller.error(1) == (
            "cancelled: cancelled before it began: nothing has changed, unless an earlier attempt had begun"
        )

    def test_but_not_to_ever_more_of_them(self, rig: Rig) -> None:
        hands = workers(rig, MAX_TRIES + 1)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.verify"))
        for hand in hands[:-1]:
            hand.gets(1)
            hand.is_lost()
        assert caller.error(1).startswith("worker_lost")
        assert not hands[-1].heard(wire.Request)

    def test_its_bye_ends_its_lease_without_a_loss(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1))
        first.say(wire.Bye("draining"))
        caller.asks(turn(2))
        caller.asks(turn(3))
        assert len(second.heard(wire.Request)) == 2
        first.answers(1)
        assert caller.answer(1)[0].error is None
        assert list(rig.state.models["talk"].workers) == ["talk/1"]
        first.is_lost()
        assert not rig.killed

    def test_a_draining_worker_that_breaks_off_is_lost_like_any_other(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.say(wire.Bye("draining"))
        hand.is_lost()
        assert caller.error(1).startswith("worker_lost")
        assert rig.killed

    def test_garbage_of_a_worker_is_a_loss(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        rig.garbage(hand.route)
        assert hand.hears(wire.Bye)[0].error is not None
        assert caller.error(1).startswith("worker_lost")

    def test_its_own_end_is_found_while_it_is_told(self, rig: Rig) -> None:
        """What follows from a broken send is handled like any event, and comes to an end."""
        first, second = workers(rig, 2)
        caller = rig.caller()
        for number in (1, 2, 3, 4):
            caller.asks(turn(number, f"n{number}", f"n{number}"))
        first.breaks()
        second.breaks()
        caller.asks(request(5, "ckpt.ls"))
        rig.wait(0.2)
        assert len([f for f in caller.heard(wire.Final) if f.error]) == 4
        assert len(rig.killed) == 2


class TestAWorkerThatComesBack:
    def test_goes_on_with_its_turns_after_what_has_arrived(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=5))
        hand.streams(1, 1, 0, b"one ")
        hand = hand.again(running(1))
        assert hand.hears(wire.Credit)[0] == wire.Credit(id_of(1), 4, 1, 4, 1)
        hand.streams(1, 2, 4, b"two")
        hand.answers(1, offset=7)
        assert [p.seq for p in caller.inbox.each(wire.Partial)] == [1, 2]
        assert caller.answer(1)[0].offset == 7
        assert not rig.killed

    def test_also_where_the_reader_has_granted_nothing_more(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=1))
        hand.streams(1, 1, 0, b"one ")
        hand = hand.again(running(1))
        assert hand.hears(wire.Credit)[0] == wire.Credit(id_of(1), 0, 1, 4, 1)

    def test_what_it_does_not_know_of_was_lost_on_the_way(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        caller.asks(request(2, "ckpt.ls"))
        caller.asks(turn(3, "a", "a"))
        hand = hand.again()
        assert "its connection broke" in caller.error(1)
        again = {m.op: m for m in hand.inbox.each(wire.Request)}
        assert again["ckpt.ls"].id == id_of(2)
        hand.answers(again["settle"].id, result=ops.Settled(True))
        assert caller.answer(3)[0].error is None

    def test_but_on_the_same_connection_it_is_only_late(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.gets(1)
        hand.say(wire.Hello(id_of(77), "worker"))
        hand.say(hand.offer)
        hand.gets(1)
        assert hand.hears(wire.Register)[0].epoch == hand.epoch, "what it says before it hears this still counts"
        hand.answers(1)
        assert caller.answer(1)[0].error is None

    def test_what_was_answered_for_it_is_cancelled(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.is_lost()
        assert caller.error(1).startswith("worker_lost")
        hand = hand.again(running(1, client=caller))
        assert hand.hears(wire.Cancel)[0] == wire.Cancel(id_of(1), "drop")
        hand.answers(1, b"too late")
        assert not caller.heard(wire.Final)
        rig.assert_idle()

    def test_what_is_being_settled_is_cancelled(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        first = first.again(running(1, save="a", client=caller))
        first.hears(wire.Cancel)
        first.answers(1, b"late")
        second.answers(settle.id, result=ops.Settled(False))
        assert len(caller.heard(wire.Final)) == 1
        rig.assert_idle()

    def test_what_another_worker_has_by_now_is_cancelled(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(request(1, "ckpt.ls"))
        first.is_lost()
        second.gets(1)
        first = first.again(wire.Running(id=id_of(1), op="ckpt.ls", client=caller.id))
        first.hears(wire.Cancel)
        first.answers(1)
        assert not caller.heard(wire.Final)
        second.answers(1)
        assert caller.answer(1)[0].error is None

    def test_a_transfer_is_broken_off_since_its_chunks_may_be_lost(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        caller.asks(request(1, "ckpt.export", context="a", credit=9))
        caller.asks(turn(2))
        caller.asks(turn(3))
        hand = hand.again(wire.Running(id=id_of(1), op="ckpt.export"), running(2))
        assert hand.hears(wire.Cancel)[0].id == id_of(1)
        assert caller.error(1).startswith("unavailable: the connection broke in the middle of the transfer")
        assert not list(hand.inbox.each(wire.Request)), "its slot is taken by what it runs"


class TestABrokerThatWasRestarted:
    def test_takes_over_what_workers_still_run_for_whoever_asks_again(self, young: Rig) -> None:
        caller = young.caller()
        hand = young.hand(epoch=4, running=[running(1, save="a", client=caller)])
        caller.asks(turn(1, "a", "a", attempt=2, have=4, credit=3))
        assert [(c.attempt, c.have, c.n) for c in hand.heard(wire.Credit)] == [(1, 0, 0), (2, 0, 3)]
        hand.streams(1, 1, 0, b"one two ", attempt=2)
        hand.answers(1, b"three", offset=8, attempt=2)
        assert caller.hears(wire.Partial)[0].offset == 0
        final, text = caller.answer(1)
        assert (final.error, final.offset, text) == (None, 8, b"three")
        young.assert_idle()

    def test_also_when_they_asked_before_the_worker_was_back(self, young: Rig) -> None:
        caller, other = young.caller(), young.caller()
        other.asks(turn(2, "a", "a"))
        caller.asks(turn(1, "a", "a", attempt=2, have=4, credit=3))
        hand = young.hand(epoch=4, running=[running(1, save="a", client=caller)])
        assert [(c.attempt, c.have, c.n) for c in hand.inbox.each(wire.Credit)] == [(2, 0, 3)]
        assert not list(hand.inbox.each(wire.Request)), "the name is held by what runs"
        hand.answers(1, b"all", attempt=2)
        hand.gets(2)
        assert (young.state.queued, young.state.queued_bytes) == (0, 0)

    def test_else_what_is_asked_again_begins_a_little_later_in_its_place(self, young: Rig) -> None:
        hand, caller = young.hand(), young.caller()
        caller.asks(turn(1, "a", "a", attempt=2))
        caller.asks(turn(2))
        caller.asks(turn(3, "a", "a"))
        hand.gets(2)
        young.wait(START_GRACE_S - 0.2)
        assert not hand.heard(wire.Request)
        young.wait(0.4)
        hand.gets(1)
        hand.answers(1)
        hand.gets(3)

    def test_but_what_only_reads_the_store_is_done_at_once(self, young: Rig) -> None:
        hand, caller = young.hand(), young.caller()
        caller.asks(request(1, "ckpt.ls", attempt=2))
        hand.gets(1)

    def test_who_is_ready_waits_again_for_a_name_that_turns_out_to_be_held(self, young: Rig) -> None:
        first, caller = young.hand("talk/0", slots=1), young.caller()
        caller.asks(turn(1))
        caller.asks(turn(2, "a", "a"))
        second = young.hand("talk/1", epoch=3, running=[running(9, save="a")])
        assert not list(second.inbox.each(wire.Request))
        first.answers(1)
        assert len(first.heard(wire.Request)) == 1
        second.answers(9)
        first.gets(2)
        first.answers(2)
        young.assert_idle()

    def test_an_answer_that_came_before_its_client_is_kept_for_it(self, young: Rig) -> None:
        hand = young.hand(epoch=4, running=[running(1, save="a")])
        hand.answers(1, b"hello")
        caller = young.caller()
        caller.asks(turn(1, "a", "a", attempt=2))
        assert caller.answer(1)[1] == b"hello"

    def test_a_turn_that_saves_nothing_and_that_nobody_asks_for_again_is_cancelled(self, young: Rig) -> None:
        hand = young.hand(epoch=4, running=[wire.Running(id=id_of(1), client=id_of(50)), running(2, save="a")])
        young.wait(GONE_S + 0.2)
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]

    def test_what_it_never_saw_is_given_to_no_other_worker(self, young: Rig) -> None:
        caller = young.caller()
        hand = young.hand(epoch=4, running=[wire.Running(id=id_of(1), op="ckpt.fork", client=caller.id, context="a")])
        other = young.hand("talk/1")
        hand.is_lost()
        assert not caller.heard(wire.Final), "it may have been answered by the broker before"
        caller.asks(request(1, "ckpt.fork", ops.Fork(["b"]), context="a", attempt=2))
        lost = caller.error(1)
        assert lost.startswith("worker_lost")
        assert "did not say whether ckpt.fork took effect" in lost
        assert not other.heard(wire.Request)

    def test_questions_of_the_last_broker_are_not_taken_for_its_own(self, young: Rig) -> None:
        old = [wire.Running(id=b"broker--" + bytes(7) + b"\1", op="settle"), wire.Running(id=id_of(3), op="warm")]
        hand = young.hand(epoch=4, running=old)
        assert [cancel.id for cancel in hand.heard(wire.Cancel)] == [item.id for item in old]
        young.assert_idle()


class TestAClientThatComesBack:
    def test_gets_the_rest_of_its_reply(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=5))
        hand.streams(1, 1, 0, b"one ")
        hand.streams(1, 2, 4, b"two ")
        caller.is_lost()
        hand.streams(1, 3, 8, b"three ")
        caller = caller.again()
        caller.asks(turn(1, credit=7, attempt=2, have=4))
        assert caller.hears(wire.Accepted)[0].attempt == 2
        assert hand.hears(wire.Credit)[0] == wire.Credit(id_of(1), 7, 2, 4, 0)
        hand.streams(1, 4, 14, b"four", attempt=1)
        hand.streams(1, 1, 4, b"two three four", attempt=2)
        hand.answers(1, offset=18, attempt=2)
        assert [(p.attempt, p.seq, p.offset) for p in caller.inbox.each(wire.Partial)] == [(2, 1, 4)]
        final, _ = caller.answer(1)
        assert (final.attempt, final.seq, final.offset, final.error) == (2, 1, 18, None)

    def test_and_its_answer_also_when_that_was_on_its_way_under_the_old_attempt(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=5))
        hand.streams(1, 1, 0, b"one ")
        caller.is_lost()
        caller = caller.again()
        caller.asks(turn(1, credit=7, attempt=2, have=2))
        hand.streams(1, 2, 4, b"two ")
        hand.answers(1, b"three", offset=8)
        final, text = caller.answer(1)
        assert (final.attempt, final.offset, text) == (2, 2, b"e two three")

    def test_gets_the_same_answer_again_after_the_end(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a", credit=5))
        hand.streams(1, 1, 0, b"one ")
        caller.is_lost()
        hand.answers(1, b"two", offset=4, result={"stop": "end"}, hot=["a"])
        caller = caller.again()
        hand.heard(wire.Request)
        for attempt, have, rest in ((2, 0, b"one two"), (3, 4, b"two"), (4, 7, b""), (5, 100, b"")):
            caller.asks(turn(1, "a", "a", attempt=attempt, have=have))
            final, text = caller.answer(1)
            assert (final.attempt, final.offset, final.seq, text) == (attempt, min(have, 7), 0, rest)
            assert wire.unpack(final.result, ops.TurnResult).stop == "end"
        assert not hand.heard(wire.Request)

    def test_an_error_is_the_same_error_again(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.answers(1, error=Problem("conflict", "it moved"))
        assert caller.error(1) == "conflict: it moved"
        caller.asks(turn(1, attempt=2))
        assert caller.error(1) == "conflict: it moved"

    def test_in_the_queue_it_keeps_its_place(self, rig: Rig) -> None:
        hand, caller, other = rig.hand(slots=1), rig.caller(), rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2))
        other.asks(turn(3))
        caller.is_lost()
        caller = caller.again()
        caller.asks(turn(2, attempt=2, credit=9))
        hand.gets(1)
        hand.answers(1)
        got = hand.gets(2)
        assert (got.attempt, got.credit) == (2, 9)
        assert len(rig.state.tasks) == 2

    def test_an_old_attempt_that_arrives_late_changes_nothing(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, attempt=3, credit=4))
        hand.gets(1)
        caller.asks(turn(1, attempt=2, credit=9))
        assert not hand.inbox.messages
        assert rig.state.tasks[id_of(1)].attempt == 3

    def test_its_transfer_is_broken_off(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(request(1, "ckpt.export", context="a", credit=1))
        hand.say(wire.Chunk(id=id_of(1), seq=1, attempt=1, epoch=hand.epoch), [b"data"])
        caller.is_lost()
        caller = caller.again()
        caller.asks(request(1, "ckpt.export", context="a", credit=1, attempt=2, have=4))
        assert caller.error(1).startswith("unavailable: the connection broke in the middle of the transfer")
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]

    def test_a_request_id_of_another_client_is_refused(self, rig: Rig) -> None:
        rig.hand()
        caller, thief = rig.caller(), rig.caller()
        caller.asks(turn(1))
        thief.asks(turn(1, attempt=2))
        assert thief.error(1) == "busy: this request id is in use by another client"
        thief.say(wire.Cancel(id_of(1), "drop"))
        thief.say(wire.Credit(id_of(1), 5))
        assert rig.state.tasks[id_of(1)].client == caller.id
        assert not rig.hands[0].heard(wire.Cancel)

    def test_another_clients_answer_is_not_told(self, rig: Rig) -> None:
        hand, caller, thief = rig.hand(), rig.caller(), rig.caller()
        caller.asks(turn(1))
        hand.answers(1, b"secret")
        thief.asks(turn(1, attempt=2))
        assert not thief.heard(wire.Final)

    def test_an_id_of_the_brokers_own_is_refused(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.say(wire.Request(IDENTITY[:8] + bytes(7) + b"\1", "turn", "talk"))
        assert caller.hears(wire.Final)[0].error is not None


class TestCancelAndGoing:
    def test_a_waiting_request_is_cancelled_at_once(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(turn(2, "a", "a"))
        caller.asks(turn(3, "a", "a"))
        caller.say(wire.Cancel(id_of(2), "keep"))
        assert caller.error(2) == "cancelled: cancelled before it began: nothing was read and nothing has changed"
        hand.gets(1)
        hand.answers(1)
        hand.gets(3)

    @pytest.mark.parametrize("mode", ["keep", "drop", "close"])
    def test_a_running_one_by_its_worker(self, rig: Rig, mode: str) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        caller.say(wire.Cancel(id_of(1), mode))
        assert hand.hears(wire.Cancel)[0] == wire.Cancel(id_of(1), mode)
        assert not list(caller.inbox.each(wire.Final))

    def test_a_client_that_is_gone_for_a_while_cancels_what_saves_nothing(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=3), rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2, "", "a"))
        caller.asks(turn(3, "a"))
        caller.asks(turn(4, "a", "a"))
        caller.is_lost()
        rig.wait(GONE_S - 0.2)
        assert not hand.heard(wire.Cancel)
        rig.wait(2.0)
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]
        assert set(rig.state.tasks) == {id_of(1), id_of(2), id_of(4)}
        hand.answers(1, error=Problem("cancelled", ""))
        hand.answers(2)
        hand.answers(4)
        rig.assert_idle()
        rig.tick()
        assert not rig.state.clients

    def test_one_that_comes_back_in_time_does_not(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        caller.is_lost()
        rig.wait(GONE_S - 1)
        caller.again()
        rig.wait(GONE_S)
        assert not hand.heard(wire.Cancel)

    def test_one_that_said_bye_does_so_at_once(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2, "", "a"))
        caller.say(wire.Bye("closed"))
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]

    def test_a_peer_that_calls_itself_ever_anew_is_one_client(self, rig: Rig) -> None:
        caller = rig.caller()
        for number in range(50):
            caller.say(wire.Hello(id_of(500 + number)))
        rig.tick()
        assert list(rig.state.clients) == [id_of(549)]


class TestBounds:
    def test_a_full_queue_is_busy_and_says_when_to_come_back(self) -> None:
        rig = Rig(Bounds(queue=3, queue_per_client=100))
        hand, caller, other = rig.hand(slots=1), rig.caller(), rig.caller()
        for number in range(1, 5):
            caller.asks(turn(number))
        other.asks(turn(5))
        final, _ = other.answer(5)
        assert final.error is not None
        assert final.error.code == "busy"
        assert final.error.retry_ms > 0
        hand.answers(1)
        other.asks(turn(5, attempt=2))
        assert other.hears(wire.Accepted)[0].id == id_of(5)

    def test_so_is_a_clients_own_queue(self) -> None:
        rig = Rig(Bounds(queue_per_client=2))
        rig.hand()
        caller, other = rig.caller(), rig.caller()
        for number in (1, 2, 3):
            caller.asks(turn(number))
        assert caller.error(3).startswith("busy: this client's queue is full")
        other.asks(turn(4))
        rig.tick()
        other.hears(wire.Accepted)

    def test_so_are_too_many_bytes(self) -> None:
        rig = Rig(Bounds(queue_bytes=1000))
        rig.hand(slots=1)
        caller = rig.caller()
        caller.asks(turn(1))
        caller.asks(turn(2), b"x" * 900)
        caller.asks(turn(3), b"x" * 900)
        assert caller.error(3).startswith("busy: ")
        assert rig.state.queued_bytes <= 1000

    def test_so_are_too_many_connections(self) -> None:
        rig = Rig(Bounds(peers=2))
        rig.caller()
        rig.caller()
        third = rig.peer()
        for message in (wire.Hello(id_of(3)), wire.Pulse()):
            third.say(message)
            refused, _ = third.hears(wire.Bye)
            assert refused.error is not None
            assert (refused.error.code, refused.error.retry_ms) == ("busy", 1000)

    def test_answers_are_kept_up_to_their_bytes_and_a_large_one_ousts_no_others(self) -> None:
        rig = Rig(Bounds(answers_bytes=10_000))
        hand, caller = rig.hand(), rig.caller()
        for number in range(1, 20):
            caller.asks(turn(number))
            hand.answers(number, b"x" * 1000)
        caller.asks(turn(20))
        hand.answers(20, b"x" * 20_000)
        caller.asks(turn(21))
        hand.answers(21, error=Problem("internal", "", traceback="x" * 3000))
        assert 5000 < rig.state.answers.bytes <= 10_000
        caller.heard(wire.Final)
        caller.asks(turn(19, attempt=2))
        assert caller.answer(19)[1] == b"x" * 1000

    def test_and_not_for_ever(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.answers(1)
        rig.wait(301.0)
        assert rig.state.answers.bytes == 0
        assert id_of(1) not in rig.state.answers

    def test_a_reply_beyond_what_a_text_may_be_is_an_error(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a", credit=100))
        piece = [b"x" * wire.MAX_PAYLOAD] * 4
        for seq in (1, 2, 3):
            hand.say(wire.Partial(id_of(1), seq, 1, hand.epoch, 4 * (seq - 1) * wire.MAX_PAYLOAD), piece)
        assert "larger than" in caller.error(1)
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "drop")]
        rig.assert_idle()

    def test_so_is_an_answer_that_does_not_fit_into_a_message(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a", credit=100))
        hand.say(wire.Partial(id_of(1), 1, 1, hand.epoch), [b"x" * wire.MAX_PAYLOAD] * 4)
        hand.answers(1, b"x" * 5 * wire.MAX_PAYLOAD, offset=4 * wire.MAX_PAYLOAD)
        assert caller.answer(1)[0].error is not None
        caller.asks(turn(2, "a", "a"))
        big = wire.pack(["x" * 40_000])
        final = wire.Final(id_of(2), 1, hand.epoch, result=big, error=Problem("internal", "x" * 25_400))
        hand.say(final)
        assert caller.answer(2)[0].error is not None
        rig.assert_idle()

    def test_arguments_that_leave_no_room_in_the_header_are_refused(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.asks(request(1, "turn", {"padding": "x" * MAX_ARGS}))
        assert caller.error(1).startswith("bad_request: the arguments have")
        caller.asks(request(2, "turn", {"padding": "x" * (MAX_ARGS - 20)}, model="", context="a" * 128))
        assert rig.hands[0].gets(2)

    @pytest.mark.parametrize("kind", ["shared", "exclusive"])
    def test_a_long_queue_for_one_name_is_worked_off(self, kind: str) -> None:
        rig = Rig(Bounds(queue_per_client=2000))
        hand, caller = rig.hand(slots=4), rig.caller()
        count = 1000
        for number in range(1, count + 1):
            caller.asks(turn(number, "a", "a" if kind == "exclusive" or number == 1 else ""))
        done = []
        while got := hand.heard(wire.Request):
            for message in got:
                done.append(message.id)
                hand.answers(message.id)
        assert done == [id_of(number) for number in range(1, count + 1)]
        rig.assert_idle()


class TestTheEnd:
    def test_a_drain_turns_away_what_waits_and_lets_what_runs_come_to_its_end(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(turn(2, "a", "a"))
        caller.asks(turn(3, "a", "a"))
        rig.drain()
        assert hand.heard(wire.Cancel) == [wire.Cancel(id_of(1), "keep")]
        for number in (2, 3):
            assert caller.error(number).startswith("unavailable: the broker is shutting down")
        caller.asks(turn(4))
        assert caller.error(4).startswith("unavailable: the broker is shutting down")
        assert not rig.stopped
        hand.answers(1, b"part")
        assert caller.answer(1)[1] == b"part"
        assert rig.stopped
        assert caller.hears(wire.Bye)[0].code == "leaving"
        rig.assert_idle()

    def test_nothing_that_waits_begins_in_a_drain(self, rig: Rig) -> None:
        hand, caller = rig.hand(slots=1), rig.caller()
        for number in range(1, 6):
            caller.asks(turn(number, "a", "a" if number % 2 else ""))
        hand.heard(wire.Request)
        rig.drain()
        hand.answers(1)
        assert not hand.heard(wire.Request)
        assert rig.stopped

    def test_without_work_it_is_over_at_once_and_only_once(self, rig: Rig) -> None:
        rig.drain()
        assert rig.stopped
        rig.stopped = False
        rig.drain()
        rig.tick()
        assert not rig.stopped

    def test_a_lost_turn_is_settled_in_a_drain_too(self, rig: Rig) -> None:
        first, second = workers(rig, 2)
        caller = rig.caller()
        caller.asks(turn(1, "a", "a"))
        first.is_lost()
        settle, _ = second.hears(wire.Request)
        rig.drain()
        assert not rig.stopped
        second.answers(settle.id, b"done", result=ops.Settled(True))
        assert caller.answer(1)[1] == b"done"
        assert rig.stopped

    def test_a_worker_lost_in_a_drain_keeps_nobody_waiting(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, "a", "a"))
        caller.asks(request(2, "ckpt.ls"))
        rig.drain()
        hand.is_lost()
        rig.tick()
        assert {final.id for final in caller.heard(wire.Final)} == {id_of(1), id_of(2)}
        assert rig.stopped

    def test_it_waits_no_longer_than_its_time(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        caller.asks(turn(1))
        rig.drain()
        rig.wait(DRAIN_S - 0.2)
        assert not rig.stopped
        rig.wait(0.4)
        assert rig.stopped


class TestModelsThatCannotBeServed:
    @staticmethod
    def tell(rig: Rig, model: str, user: User = LOCAL) -> Peer:
        peer = rig.peer(user=user)
        peer.say(wire.Hello(id_of(900), "worker"))
        problem = Problem("unavailable", "its file is missing", details={"model": model})
        peer.say(wire.Bye("", problem, "not_served"))
        return peer

    def test_whoever_waits_for_one_or_asks_for_it_is_told_why(self, young: Rig) -> None:
        rig = young
        rig.state.expected = frozenset({"talk"})
        caller = rig.caller()
        caller.asks(turn(1))
        assert not caller.heard(wire.Final)
        self.tell(rig, "talk")
        assert "not_found" in (said := caller.error(1))
        assert "its file is missing" in said
        caller.asks(turn(2))
        assert "its file is missing" in caller.error(2)
        assert report(rig.state, rig.broker.rates, 1).not_served == {"talk": "its file is missing"}

    def test_one_that_is_served_after_all_is_served(self, rig: Rig) -> None:
        rig.state.expected = frozenset({"talk"})
        self.tell(rig, "talk")
        hand = rig.hand()
        caller = rig.caller()
        caller.asks(turn(1))
        assert hand.hears(wire.Request)[0].id == id_of(1)
        assert rig.state.not_served == {}

    def test_only_configured_ones_are_noted(self, rig: Rig) -> None:
        self.tell(rig, "anything")
        assert rig.state.not_served == {}

    def test_it_needs_the_role_of_a_worker(self, rig: Rig) -> None:
        rig.state.expected = frozenset({"talk"})
        peer = self.tell(rig, "talk", User("someone", "k" * 40, Role.READ))
        refused, _ = peer.hears(wire.Bye)
        assert refused.error is not None
        assert refused.error.code == "refused"
        assert rig.state.not_served == {}


class TestStrangers:
    def test_who_has_not_said_hello_is_told_to(self, rig: Rig) -> None:
        peer = rig.peer()
        for message in (wire.Pulse(), turn(1), wire.Register(worker="talk/0", model=CARD), wire.Cancel(id_of(1))):
            peer.say(message)
            assert peer.hears(wire.Bye)[0].code == "hello_first"
        peer.say(wire.Bye("never mind"))
        assert not peer.inbox.messages
        assert not rig.state.peers

    def test_another_version_is_told_which_one_is_spoken(self, rig: Rig) -> None:
        peer = rig.peer()
        peer.say(wire.Hello(id_of(1), versions=(2, 3)))
        assert "speaks version 1 only" in peer.hears(wire.Bye)[0].reason

    def test_a_newer_client_that_also_speaks_ours_is_welcome(self, rig: Rig) -> None:
        peer = rig.peer()
        peer.say(wire.Hello(id_of(1), versions=(1, 2)))
        assert peer.hears(wire.Hello)[0].client == IDENTITY

    def test_garbage_ends_the_connection_with_the_reason(self, rig: Rig) -> None:
        caller = rig.caller()
        rig.garbage(caller.route)
        refused, _ = caller.hears(wire.Bye)
        assert refused.error is not None
        assert caller.route not in rig.state.peers

    def test_a_wrong_request_is_answered_and_nothing_else_happens(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller()
        wrong = [
            request(1, "dance"),
            request(2, "settle"),
            request(3, "ckpt.show"),
            request(4, "turn", context="../x"),
            request(5, "turn", {"save": "a b"}),
            request(6, "turn", ["no", "map"]),
            request(7, "ckpt.fork", ops.Fork([]), context="a"),
        ]
        for message in wrong:
            caller.asks(message)
        assert [final.error.code for final in caller.heard(wire.Final) if final.error] == ["bad_request"] * 7
        assert rig.state.counters.refused == 7
        rig.assert_idle()

    def test_time_does_not_run_backwards(self, rig: Rig) -> None:
        hand, caller = rig.hand(), rig.caller()
        rig.handle(Tick(rig.now - 500.0))
        frames = wire.encode(turn(1, ttl_ms=1000))
        message, payloads = wire.decode(frames)
        rig.handle(Received(now=rig.now - 500.0, route=caller.route, message=message, payloads=payloads, frames=frames))
        assert rig.state.tasks[id_of(1)].deadline == rig.now + 1.0
        hand.gets(1)
