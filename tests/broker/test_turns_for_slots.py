"""Who gets the next free slot: clients in turn, each one's turns in order of arrival, the turns of a name in theirs."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from rig import CARD, Caller, Hand, Rig, id_of, request, turn

from broker.ready import Lane, Ready
from broker.records import HOUSE, Task, Worker
from ssmprov import ops, wire
from ssmprov.keys import Role, User


def starts(hand: Hand) -> list[int]:
    """The requests that a worker was given since it was last asked, by their numbers."""
    return [int.from_bytes(message.id, "big") for message in hand.heard(wire.Request)]


def work_off(hand: Hand, number: int) -> list[int]:
    """Answer one turn after the other until none comes; in which order they were given out."""
    order = starts(hand)
    for done in order:
        hand.answers(done, number.to_bytes(1, "big"))
        order += starts(hand)
    return order


def many(caller: Caller, *numbers: int) -> None:
    for number in numbers:
        caller.asks(turn(number))


def told(caller: Caller) -> list[type[wire.Message]]:
    """The kinds of what came to a client, but for the pulses."""
    return [type(message) for message, _ in caller.inbox.all() if not isinstance(message, wire.Pulse)]


class TestClientsInTurn:
    def test_a_client_that_comes_later_does_not_wait_for_all_that_another_has_queued(self) -> None:
        rig = Rig()
        hand, greedy, modest = rig.hand(slots=1), rig.caller(), rig.caller()
        many(greedy, *range(1, 101))
        many(modest, 201, 202)
        assert work_off(hand, 0)[:6] == [1, 2, 201, 3, 202, 4]

    def test_who_has_fewer_slots_is_served_first(self) -> None:
        rig = Rig()
        hand, greedy, modest = rig.hand(slots=3), rig.caller(), rig.caller()
        many(greedy, 1, 2, 3, 4, 5, 6)
        many(modest, 11, 12, 13)
        assert starts(hand) == [1, 2, 3]
        hand.answers(2)
        assert starts(hand) == [11]  # 2 slots against none
        hand.answers(1)
        assert starts(hand) == [4]  # 1 against 1: it was served longer ago
        hand.answers(3)
        assert starts(hand) == [12]

    def test_that_counts_for_more_than_who_came_first(self) -> None:
        rig = Rig()
        hand, greedy, modest, third = rig.hand(slots=4), rig.caller(), rig.caller(), rig.caller()
        many(greedy, 1, 2)
        many(modest, 11)
        many(third, 21)
        many(greedy, 3)
        many(modest, 12)
        starts(hand)
        hand.answers(21)
        assert starts(hand) == [12]

    def test_one_clients_turns_go_in_order_of_arrival_and_so_do_those_of_a_name(self) -> None:
        rig = Rig()
        hand, one, other = rig.hand(slots=1), rig.caller(), rig.caller()
        many(one, 1)
        for number, caller in enumerate([one, one, other, one, other], 2):
            caller.asks(turn(number, "name", "name"))
        many(other, 7)
        assert [number for number in work_off(hand, 0) if number not in (1, 7)] == [2, 3, 4, 5, 6]

    def test_clients_of_one_key_count_as_one(self) -> None:
        rig = Rig()
        hand = rig.hand(slots=2)
        key, other = (User(name, name * 40, Role.ADMIN) for name in "ab")
        first, second, stranger = rig.caller(user=key), rig.caller(user=key), rig.caller(user=other)
        many(first, 1, 2, 3)
        many(second, 11)
        many(stranger, 21)
        assert starts(hand) == [1, 2]
        hand.answers(1)
        assert starts(hand) == [21]
        hand.answers(2)
        assert starts(hand) == [3]  # of the one key 3 came before 11, of the other nothing waits

    def test_a_turn_for_a_busy_worker_holds_up_no_other(self) -> None:
        rig = Rig()
        hands = [rig.hand(f"talk/{index}", slots=1, pins={"a": "talk/0"}) for index in range(2)]
        caller = rig.caller()
        caller.asks(turn(1, "a"))
        caller.asks(turn(2, "a"))
        many(caller, 3, 4)
        assert [starts(hand) for hand in hands] == [[1], [3]]
        hands[1].answers(3)
        assert [starts(hand) for hand in hands] == [[], [4]]
        hands[0].answers(1)
        assert [starts(hand) for hand in hands] == [[2], []]

    def test_a_pin_that_comes_while_a_turn_waits_counts(self) -> None:
        rig = Rig()
        hands = [rig.hand(f"talk/{index}", slots=1) for index in range(2)]
        caller = rig.caller()
        many(caller, 1, 2)
        caller.asks(turn(3, "a"))
        caller.asks(turn(5))
        caller.asks(request(4, "ckpt.move", ops.Move("1"), context="b"))
        given = [starts(hand) for hand in hands]
        mover = next(hand for hand, numbers in zip(hands, given, strict=True) if 4 in numbers)
        mover.answers(4, pins={"a": "talk/1"})
        hands[0].answers(1)
        assert starts(hands[0]) == [5]
        hands[1].answers(2)
        assert starts(hands[1]) == [3]


class TestAccepted:
    """ACCEPTED waits for a moment, and is left out where the answer is there before."""

    def test_an_answer_that_comes_at_once_comes_alone(self) -> None:
        rig = Rig()
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1))
        hand.answers(1)
        assert rig.broker.due_at == float("inf")
        rig.tick()
        assert told(caller) == [wire.Final]

    def test_while_it_takes_longer_its_client_is_told(self) -> None:
        rig = Rig()
        rig.hand()
        caller = rig.caller()
        caller.asks(turn(1))
        assert not caller.inbox.messages
        assert rig.now < rig.broker.due_at <= rig.now + 0.01
        rig.tick()
        assert told(caller) == [wire.Accepted]
        assert rig.broker.due_at == float("inf")

    def test_it_comes_before_anything_else_that_is_told(self) -> None:
        rig = Rig()
        hand, caller = rig.hand(), rig.caller()
        caller.asks(turn(1, credit=2))
        caller.asks(request(2, "ckpt.import", ops.Import("a", 1, "0" * 64)))
        hand.streams(1, 1, 0, b"text")
        hand.say(wire.Credit(id_of(2), 1))
        assert told(caller) == [wire.Accepted, wire.Partial, wire.Accepted, wire.Credit]

    def test_who_has_to_wait_hears_its_place_at_once(self) -> None:
        rig = Rig()
        rig.hand(slots=1)
        caller = rig.caller()
        many(caller, 1, 2, 3)
        assert [(message.id[-1], message.place) for message in caller.heard(wire.Accepted)] == [(2, 0), (3, 1)]

    def test_who_comes_back_meanwhile_is_told_once(self) -> None:
        rig = Rig()
        rig.hand()
        caller = rig.caller()
        caller.asks(turn(1))
        caller.is_lost()
        again = caller.again()
        again.asks(turn(1, attempt=2))
        rig.tick()
        assert [message.attempt for message in again.heard(wire.Accepted)] == [2]


class TestReady:
    @given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["", "talk/0"]), st.booleans()), max_size=30))
    def test_each_owners_tasks_of_a_lane_stay_in_order_and_none_is_lost(
        self, drawn: list[tuple[str, str, bool]]
    ) -> None:
        ready = Ready()
        tasks = [task(number, owner, slot=slot) for number, (owner, _, slot) in enumerate(drawn)]
        pins = {one.order: pin for one, (_, pin, _) in zip(tasks, drawn, strict=True)}
        for one in reversed(tasks):  # as those of a lost worker come back
            ready.add(one, pins[one.order])
        ready.regroup(lambda one: pins[one.order])
        taken = drain(ready)
        assert sorted(one.order for one in taken) == list(range(len(tasks)))
        for owner in "abc":
            of_owner = [one.order for one in taken if one.owner == owner]
            assert of_owner == sorted(of_owner)
        assert not ready

    @given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=40))
    def test_nobody_is_served_twice_while_somebody_waits(self, owners: list[str]) -> None:
        ready = Ready()
        for number, owner in enumerate(owners):
            ready.add(task(number, owner), "")
        left, served = Counter(owners), Counter[str]()
        for one in drain(ready):
            assert all(served[one.owner] <= served[other] for other in left if left[other])
            served[str(one.owner)] += 1
            left[str(one.owner)] -= 1

    def test_the_house_comes_first_and_alone_in_a_drain(self) -> None:
        ready = Ready()
        ready.add(task(1, "a"), "")
        ready.add(task(2, HOUSE), "")
        assert [one.order for one in drain(ready, house_only=True)] == [2]
        ready.add(task(3, HOUSE), "")
        assert [one.order for one in drain(ready)] == [3, 1]

    def test_a_lane_without_room_is_asked_for_once_however_many_wait_in_it(self) -> None:
        ready = Ready()
        for number in range(1000):
            ready.add(task(number, f"owner {number}"), "talk/0")
        asked: list[int] = []

        def none(one: Task) -> None:
            asked.append(one.order)

        full: set[Lane] = set()
        assert ready.take({}, full, none) is None
        assert ready.take({}, full, none) is None
        assert asked == [0]


WORKER = Worker(
    name="talk/0", model=CARD.name, route=b"route", epoch=1, slots=1, pid=1, started=1, host="here", stall_s=60.0
)


def task(order: int, owner: str | bytes, *, slot: bool = True) -> Task:
    op = "turn" if slot else "ckpt.ls"
    nothing: frozenset[str] = frozenset()
    return Task(
        request=request(order, op),
        payloads=[],
        args=None,
        client=b"",
        shared=nothing,
        exclusive=nothing,
        saves=False,
        deadline=0.0,
        order=order,
        owner=owner,
    )


def drain(ready: Ready, *, house_only: bool = False) -> list[Task]:
    found = []
    while next_one := ready.take({}, set(), lambda _: WORKER, house_only=house_only):
        found.append(next_one[0])
    return found
