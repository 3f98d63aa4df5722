"""Keys and roles at the machine: who may do what, whose answers are whose, and what binds each key."""

from __future__ import annotations

from typing import Any

import pytest
from rig import CARD, Rig, id_of, request, turn

from broker.events import Admit
from broker.state import Bounds
from ssmprov import operations, ops, wire
from ssmprov.keys import Role, User

READER, WRITER, CHIEF, HAND, OTHER = (
    User(name, name * 8, role)
    for name, role in (
        ("reads", Role.READ),
        ("write", Role.WRITE),
        ("chief", Role.ADMIN),
        ("hands", Role.WORKER),
        ("other", Role.WRITE),
    )
)
MAKER = User("maker", "maker" * 8, Role.GENERATE)

NEEDS: dict[str, tuple[Any, str]] = {
    "ckpt.ls": (ops.List(), "read"),
    "ckpt.show": (ops.Show(text=True), "read"),
    "ckpt.log": (ops.Log(), "read"),
    "ckpt.tree": (ops.Tree(), "read"),
    "ckpt.export": (ops.Export(), "read"),
    "settings.ls": (ops.SettingsLs(), "read"),
    "settings.show": (ops.SettingsShow(), "read"),
    "probe": (ops.Probe(), "read"),
    "probe that writes": (ops.Probe(reply_tokens=1), "generate"),
    "turn": (ops.Turn(), "generate"),
    "ckpt.replay": (ops.Replay(), "generate"),
    "turn that saves": (ops.Turn(save="x"), "write"),
    "ckpt.replay that saves": (ops.Replay(save="x"), "write"),
    "ckpt.fork": (ops.Fork(["x"]), "write"),
    "ckpt.move": (ops.Move(), "write"),
    "ckpt.rm": (ops.Remove(["x"]), "write"),
    "ckpt.import": (ops.Import("x", 10), "write"),
    "settings.set": (ops.SettingsSet("x", values={"temp": 1.0}), "write"),
    "ckpt.verify": (ops.Verify(), "admin"),
    "ckpt.repair": (ops.Repair(), "admin"),
    "ckpt.gc": (ops.Collect(), "admin"),
}


@pytest.fixture
def rig() -> Rig:
    return Rig(Bounds(peers=12, peers_per_key=3, requests_per_s=10.0, queue=200, queue_per_client=100))


def test_every_operation_of_a_client_is_in_the_table() -> None:
    assert {row.partition(" ")[0] for row in NEEDS} == {
        name
        for name, operation in operations.OPERATIONS.items()
        if not operation.internal and operation.room != "broker"
    }


def test_an_operation_that_no_table_names_is_for_nobody_but_an_admin() -> None:
    assert operations.right(request(1, "ckpt.unheard-of"), ops.Verify()) is Role.ADMIN


@pytest.mark.parametrize("row", NEEDS)
@pytest.mark.parametrize("user", [READER, MAKER, WRITER, CHIEF, HAND], ids=lambda user: user.name)
def test_a_role_may_do_its_own_and_what_is_below(rig: Rig, row: str, user: User) -> None:
    args, need = NEEDS[row]
    worker = rig.hand()
    caller = rig.caller(user=user)
    caller.asks(request(1, row.partition(" ")[0], args, context="ctx"))
    order = ["read", "generate", "write", "admin"]
    if user.role in order and order.index(user.role) >= order.index(need):
        worker.gets(1)
    else:
        assert caller.error(1).startswith(f"refused: {row.partition(' ')[0]} needs the role '{need}'")
        assert not worker.heard(wire.Request)


def test_status_is_for_who_may_read(rig: Rig) -> None:
    caller, worker = rig.caller(user=READER), rig.caller(user=HAND)
    caller.asks(request(1, "status"))
    assert caller.answer(1)[0].error is None
    worker.asks(request(2, "status"))
    assert worker.error(2).startswith("refused: ")


@pytest.mark.parametrize("user", [READER, MAKER, WRITER, CHIEF], ids=lambda user: user.name)
def test_no_client_may_pass_itself_off_as_a_worker(rig: Rig, user: User) -> None:
    worker = rig.hand("talk/0")
    for name in ("talk/0", "talk/1", "fresh/0"):
        forged = rig.hand(name, user=user, model=CARD if "talk" in name else wire.ModelCard(name="fresh"))
        bye, _ = forged.hears(wire.Bye)
        assert bye.error is not None
        assert bye.error.code == "refused"
        assert forged.epoch == 0
    rig.caller().asks(turn(1, "", "x"))
    worker.gets(1)


def test_a_key_of_a_worker_may_serve(rig: Rig) -> None:
    worker = rig.hand("talk/0", user=HAND)
    assert worker.epoch == 1
    rig.caller().asks(turn(1))
    worker.gets(1)


def test_an_answer_from_a_forged_epoch_or_another_connection_counts_for_nothing(rig: Rig) -> None:
    worker = rig.hand("talk/0", user=HAND)
    caller = rig.caller()
    caller.asks(turn(1))
    worker.gets(1)
    worker.answers(1, b"forged", epoch=worker.epoch + 1)
    second = rig.hand("talk/1", user=HAND)
    second.answers(1, b"forged")
    stranger = rig.caller(user=CHIEF)
    stranger.say(wire.Final(id_of(1), 1, worker.epoch), [b"forged"])
    worker.answers(1, b"right")
    assert caller.answer(1)[1] == b"right"
    assert not caller.heard(wire.Final)


def test_a_lease_goes_to_no_other_key_whatever_its_process_says_it_is(rig: Rig) -> None:
    worker = rig.hand("talk/0", user=HAND)
    caller = rig.caller()
    caller.asks(turn(1, "", "mine"))
    worker.gets(1)
    thief = rig.hand("talk/0", user=User("thief", "thief" * 8, Role.WORKER), pid=worker.offer.pid)
    assert "is leased to process" in thief.hears(wire.Bye)[0].reason
    worker.answers(1, b"right")
    assert caller.answer(1)[1] == b"right"


class TestClientIds:
    def test_the_answers_of_a_client_go_to_nobody_with_another_key(self, rig: Rig) -> None:
        worker = rig.hand()
        caller = rig.caller(user=WRITER)
        caller.asks(turn(1, "", "mine"))
        worker.gets(1)
        thief = rig.peer(OTHER)
        thief.say(wire.Hello(caller.id))
        bye, _ = thief.hears(wire.Bye)
        assert bye.error is not None
        assert bye.error.code == "refused"
        worker.answers(1, b"secret")
        assert caller.answer(1)[1] == b"secret"
        assert not thief.inbox.messages

    def test_nor_are_they_kept_for_one(self, rig: Rig) -> None:
        worker = rig.hand()
        caller = rig.caller(user=WRITER)
        caller.asks(turn(1, "", "mine"))
        worker.gets(1)
        worker.answers(1, b"secret")
        other = rig.caller(user=OTHER)
        other.asks(turn(1, "", "mine"))
        worker.gets(1)  # it is a request of its own, which the store decides about

    def test_nobodys_id_is_refused(self, rig: Rig) -> None:
        peer = rig.peer()
        peer.say(wire.Hello(wire.NOBODY))
        assert peer.hears(wire.Bye)[0].error is not None

    def test_one_that_a_restarted_broker_has_from_a_worker_belongs_to_whoever_says_it_first(self, rig: Rig) -> None:
        client = b"c" * 16
        worker = rig.hand(
            running=[wire.Running(id=id_of(1), attempt=1, client=client, op="turn", context="", save="kept")]
        )
        caller = rig.caller(client, user=WRITER)
        caller.asks(turn(1, "", "kept", attempt=2))
        worker.answers(1, b"the reply")
        rig.peer(OTHER).say(wire.Hello(client))
        assert caller.answer(1)[1] == b"the reply"

    def test_a_worker_that_said_the_id_before_is_not_that_client(self, rig: Rig) -> None:
        worker = rig.hand()
        spy = rig.peer(HAND)
        spy.say(wire.Hello(b"c" * 16, "worker"))
        caller = rig.caller(b"c" * 16, user=WRITER)
        caller.asks(turn(1, "", "mine"))
        worker.gets(1)
        spy.say(wire.Cancel(id_of(1), "drop"))
        spy.say(wire.Credit(id_of(1), 1000))
        spy.say(wire.Chunk(id=id_of(1), seq=1), [b"forged"])
        spy.say(request(2, "status"))
        assert not worker.heard(wire.Cancel)
        assert not caller.heard(wire.Final)

    def test_a_routing_id_that_another_key_took_over_is_a_new_connection(self, rig: Rig) -> None:
        worker = rig.hand()
        caller = rig.caller(user=WRITER)
        caller.asks(turn(1))
        worker.gets(1)
        caller.user = OTHER
        caller.say(wire.Cancel(id_of(1), "drop"))
        assert not worker.heard(wire.Cancel)
        assert "HELLO first" in caller.hears(wire.Bye)[0].reason


class TestBounds:
    def test_a_key_has_so_many_connections(self, rig: Rig) -> None:
        for _ in range(3):
            rig.caller(user=WRITER)
        with pytest.raises(AssertionError, match="heard no Hello"):
            rig.caller(user=WRITER)
        rig.caller(user=OTHER)
        rig.caller()

    def test_keys_leave_places_for_who_needs_none(self, rig: Rig) -> None:
        for number in range(11):
            rig.hand(f"talk/{number}", user=HAND)
        with pytest.raises(AssertionError, match="heard no Hello"):
            rig.hand("talk/11", user=HAND)
        assert rig.caller()

    def test_models_that_come_and_go_are_not_kept_for_ever(self, rig: Rig) -> None:
        rig.hand("talk/0")
        for number in range(300):
            card = wire.ModelCard(name=f"m{number}", runtime="scripted", fingerprint="f" * 64)
            rig.hand(f"m{number}/0", user=HAND, model=card).say(wire.Bye("done"))
        assert "talk" in rig.state.models
        assert len(rig.state.models) <= 256

    def test_a_key_asks_so_often_and_no_more(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller(user=READER)

        def asked(numbers: range) -> list[bool]:
            for number in numbers:
                caller.asks(request(number, "status"))
            return [caller.answer(number)[0].error is None for number in numbers]

        assert asked(range(1, 26)) == [True] * 20 + [False] * 5
        rig.wait(0.5)
        assert asked(range(30, 40)) == [True] * 5 + [False] * 5
        rig.wait(60)
        assert asked(range(50, 75)) == [True] * 20 + [False] * 5

    def test_the_refusal_says_when_to_come_back(self, rig: Rig) -> None:
        caller = rig.caller(user=READER)
        for number in range(1, 22):
            caller.asks(request(number, "status"))
        final, _ = caller.answer(21)
        assert final.error is not None
        assert (final.error.code, 50 < final.error.retry_ms <= 101) == ("busy", True)

    def test_an_answer_that_is_asked_for_again_counts_too(self, rig: Rig) -> None:
        worker = rig.hand()
        caller = rig.caller(user=READER)
        caller.asks(request(1, "ckpt.show", ops.Show(), context="x"))
        worker.gets(1)
        worker.answers(1, b"t" * 1000)
        for attempt in range(2, 40):
            caller.asks(request(1, "ckpt.show", ops.Show(), context="x", attempt=attempt))
        answers = caller.heard(wire.Final)
        assert sum(final.error is None for final in answers) == 20
        assert {final.error.code for final in answers if final.error} == {"busy"}

    def test_a_process_without_a_key_is_not_counted_so(self, rig: Rig) -> None:
        callers = [rig.caller() for _ in range(8)]
        for number in range(1, 101):
            callers[number % 8].asks(request(number, "status"))
        assert sum(len(caller.heard(wire.Final)) for caller in callers) == 100

    def test_all_clients_of_a_key_share_its_place_in_the_queue(self) -> None:
        rig = Rig(Bounds(queue=100, queue_per_client=4))
        rig.hand(slots=1)
        callers = [rig.caller(user=WRITER) for _ in range(3)]
        for number in range(1, 10):
            callers[number % 3].asks(turn(number))
        refused = [final for caller in callers for final in caller.heard(wire.Final)]
        assert len(refused) == 5
        other = rig.caller(user=OTHER)
        other.asks(turn(20))
        assert not other.heard(wire.Final)


@pytest.mark.parametrize("credit", [0, 8])
def test_who_reads_an_export_slowly_keeps_nobody_from_its_name(rig: Rig, credit: int) -> None:
    worker = rig.hand()
    reader, writer = rig.caller(user=READER), rig.caller(user=WRITER)
    reader.asks(request(1, "ckpt.export", ops.Export(), context="shared", credit=credit))
    writer.asks(turn(2, "shared", "shared"))
    assert worker.gets(1).credit >= 1
    assert not worker.heard(wire.Request)
    worker.say(wire.Chunk(id=id_of(1), seq=1, attempt=1, epoch=worker.epoch), [b"x" * 100])
    worker.gets(2)
    worker.answers(2)
    worker.say(wire.Chunk(id=id_of(1), seq=2, attempt=1, epoch=worker.epoch, offset=100, last=True), [b"y"])
    worker.answers(1)
    assert reader.answer(1)[0].error is None
    rig.assert_idle()


class TestRevoking:
    def revoke(self, rig: Rig, *gone: User) -> None:
        users = {user.public: user for user in (READER, MAKER, WRITER, CHIEF, HAND, OTHER) if user not in gone}
        rig.handle(Admit(rig.now, users))

    def test_what_was_asked_with_it_ends_and_no_other(self, rig: Rig) -> None:
        worker = rig.hand(slots=2)
        caller, other = rig.caller(user=WRITER), rig.caller(user=OTHER)
        caller.asks(turn(1, "", "one"))
        other.asks(turn(2, "", "two"))
        caller.asks(turn(3, "", "two"))
        worker.gets(1)
        worker.gets(2)
        self.revoke(rig, WRITER)
        assert [cancel.id for cancel in worker.heard(wire.Cancel)] == [id_of(1)]
        bye, _ = caller.hears(wire.Bye)
        assert bye.error is not None
        assert bye.error.code == "refused"
        worker.answers(1, error=None)
        worker.answers(2, b"right")
        assert other.answer(2)[1] == b"right"
        assert not caller.heard(wire.Final)
        rig.wait(1)
        rig.assert_idle()

    def test_a_worker_of_it_is_lost(self, rig: Rig) -> None:
        worker = rig.hand("talk/0", user=HAND)
        caller = rig.caller()
        caller.asks(turn(1))
        worker.gets(1)
        self.revoke(rig, HAND)
        assert caller.error(1).startswith("worker_lost: ")

    def test_another_role_holds_from_the_next_request_on(self, rig: Rig) -> None:
        rig.hand()
        caller = rig.caller(user=WRITER)
        less = User(WRITER.name, WRITER.public, Role.READ)
        rig.handle(Admit(rig.now, {WRITER.public: less}))
        caller.user = less
        caller.asks(turn(1, "", "x"))
        said = "refused: turn needs the role 'write', but the key 'write' has the role 'read'"
        assert caller.error(1).startswith(said)

    def test_a_process_without_a_key_stays(self, rig: Rig) -> None:
        worker, caller = rig.hand(), rig.caller()
        self.revoke(rig, *(READER, MAKER, WRITER, CHIEF, HAND, OTHER))
        caller.asks(turn(1))
        worker.gets(1)
