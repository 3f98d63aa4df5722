"""Duplicate requests, late answers of an old attempt or epoch, two workers under one name: one effect, one answer."""

from __future__ import annotations

import threading
from typing import Any

from aftermath import Aftermath
from house import SOME, House, Listener, Moment
from peers import Peer, Peers

from ssmprov import ops, wire


def test_two_clients_that_send_one_id_at_once_get_one_effect_and_one_answer(house: House, aftermath: Aftermath) -> None:
    for model in house.models:
        key = wire.new_id()
        start = threading.Barrier(4)
        answers: list[Any] = []

        work = (house, model, key, start, answers)
        threads = [threading.Thread(target=ask_once, args=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 4
        assert len(set(answers)) == 1
        house.acknowledge("once", "once" + answers[0][0], model)
        with house.client() as client:
            assert client.show(f"{model}:once").row.steps == 1


def ask_once(house: House, model: str, key: bytes, start: threading.Barrier, answers: list[Any]) -> None:
    options: Any = {"model": model, "context": "once", "save": "once", "create": True, "max_tokens": 30}
    with house.client(patience_s=30.0) as client:
        start.wait()
        reply = client.turn("once", request_id=key, **options)
        answers.append((reply.text, reply.result.object))


def test_a_request_sent_again_in_mid_turn_is_streamed_on(house: House, aftermath: Aftermath, peers: Peers) -> None:
    """The second attempt says how much it has; what comes is the rest, and a piece of the first attempt is dropped."""
    args = wire.pack(ops.Turn(save="again", stream=True))
    request = wire.Request(wire.new_id(), "turn", "talk", credit=3, args=args)
    first = peers(house.cluster.endpoint)
    first.say(request, [b"[SOME]:"])
    had = sum(wire_length(first) for _ in range(3))
    request.attempt, request.have, request.credit = 2, had, 10**6
    first.say(request, [b"[SOME]:"])
    text = SOME.encode()[:had]
    while True:
        message, payloads = heard(first)
        if isinstance(message, wire.Partial):
            assert message.attempt == 2
            assert message.offset <= len(text)
            text = text[: message.offset] + b"".join(payloads)
        elif isinstance(message, wire.Final):
            break
    assert message.attempt == 2
    assert (text[: message.offset] + b"".join(payloads)).decode() == SOME
    house.acknowledge("again", "[SOME]:" + SOME)


def heard(peer: Peer) -> tuple[wire.Message, list[bytes]]:
    assert peer.socket.poll(20_000)
    message, payloads = wire.decode(peer.socket.recv_multipart())
    if isinstance(message, wire.Pulse):
        peer.say(wire.Pulse())
    return message, payloads


def wire_length(peer: Peer) -> int:
    while True:
        message, payloads = heard(peer)
        if isinstance(message, wire.Partial):
            return sum(map(len, payloads))


def test_an_answer_of_an_old_epoch_or_attempt_is_dropped(house: House, aftermath: Aftermath, peers: Peers) -> None:
    client, old, new = (peers(house.cluster.endpoint, role) for role in ("client", "worker", "worker"))
    card = wire.ModelCard(name="hand", runtime="by hand", fingerprint="f" * 64)
    offer = wire.Register(worker="hand/0", model=card, store="store", slots=4, pid=1, started=0, host="elsewhere")
    old.say(offer)
    assert old.hears(wire.Register).epoch == 1
    request = wire.Request(wire.new_id(), "turn", "hand", args=wire.pack({}))
    client.say(request)
    assert old.hears(wire.Request).epoch == 1
    # The same process comes back on another connection, and goes on with what it had.
    offer.epoch = 1
    offer.running = [wire.Running(id=request.id)]
    new.say(offer)
    assert new.hears(wire.Register).epoch == 2
    result = wire.pack({"stop": "end"})
    old.say(wire.Final(request.id, 1, 1, result=result), [b"from the old connection"])
    assert old.hears(wire.Bye)
    new.say(wire.Final(request.id, 1, 1, result=result), [b"of the old epoch"])
    new.say(wire.Partial(request.id, 1, 2, 2), [b"of no attempt"])
    new.say(wire.Final(request.id, 1, 2, result=result), [b"the answer"])
    new.say(wire.Final(request.id, 1, 2, result=result), [b"a second answer"])
    finals = []
    client.say(wire.Request(wire.new_id(), "status"))
    while True:
        message, payloads = heard(client)
        assert not isinstance(message, wire.Partial)
        if isinstance(message, wire.Final):
            if message.id != request.id:
                break
            finals.append(b"".join(payloads))
    if not finals:
        finals.append(b"".join(next(p for m, p in iter(lambda: heard(client), None) if isinstance(m, wire.Final))))
    assert finals == [b"the answer"]
    assert client.status().broker.running == 0
    new.say(wire.Bye())


def test_a_second_worker_under_one_name_is_refused_until_the_first_is_gone(house: House, aftermath: Aftermath) -> None:
    with house.client() as client:
        house.turn(client, "before", "named", max_tokens=0)
        client.move("talk:named", "talk/0")
        second = house.cluster.start("talk/0 again", "-m", "workers", "--model", "talk", "--index", "0")
        stream = Listener(client.stream("[SOME]:", model="talk", context="named", save="named"))
        house.cluster.processes["broker"].expect("refused worker talk/0: talk/0 is leased to process")
        assert stream.end().error is None
        house.acknowledge("named", "before[SOME]:" + stream.text)
        assert [worker.pid for worker in client.status().workers if worker.name == "talk/0"] == [house.pid("talk/0")]
        moment = Moment()
        house.cluster.processes["talk/0"].kill()
        second.expect(r"talk/0 serves talk")
        moment.within(2.0, "the second one has the name")
        house.cluster.processes["talk/0"] = house.cluster.processes.pop("talk/0 again")
        house.ready["pids"]["talk/0"] = second.child.pid
        house.turn(client, "!", "named", max_tokens=2)
