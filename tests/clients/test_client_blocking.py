"""The blocking client against a small broker on a real socket."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cluster import busy

from clients import Client
from clients.calls import Call
from clients.exchange import Result
from ssmprov import operations, ops, wire
from ssmprov.errors import BadRequest, Busy, Cancelled, Corrupt, NotFound, TimedOut, Unreachable


@pytest.fixture
def client(router: Any) -> Any:
    with Client(router.endpoint, agent="test") as found:
        yield found


def test_a_turn_returns_text_result_and_id(client: Client, router: Any) -> None:
    reply = client.turn("Say hello", model="m", context="a", save="b", seed=7)
    assert (reply.text, reply.result.stop) == ("Héllo 🌍", "end")
    [request] = router.requests("turn")
    args = operations.decode_args(request)
    assert (request.model, request.context, args.save, args.seed) == ("m", "a", "b", 7)
    assert request.id == reply.id
    assert router.prompts == ["Say hello"]


def test_a_stream_gives_pieces_and_then_the_reply(client: Client) -> None:
    with client.stream("hi", model="m") as stream:
        assert list(stream) == ["Hé", "llo", " 🌍"]
        assert stream.reply.text == "Héllo 🌍"
        assert stream.reply.id == stream.id


def test_a_turn_with_callbacks_streams(client: Client, router: Any) -> None:
    pieces: list[str] = []
    assert client.turn("hi", model="m", on_text=pieces.append).text == "".join(pieces)
    assert operations.decode_args(router.requests("turn")[0]).stream


def test_a_long_stream_outlives_its_first_credit(client: Client, router: Any) -> None:
    router.pieces = ["x"] * 1000
    with client.stream("hi", model="m") as stream:
        assert sum(map(len, stream)) == 1000
    grants = [message.n for message in router.seen if isinstance(message, wire.Credit)]
    assert all(grants)
    assert sum(grants) <= 1000


def test_a_reader_that_pauses_is_not_sent_more_than_its_credit(client: Client, router: Any) -> None:
    router.pieces = ["x"] * 1000
    with client.stream("hi", model="m") as stream:
        next(stream)
        client.turn("another one is not slowed", model="m", max_tokens=0)
        [held] = router.turns.values()
        assert len(held.pieces) > 900
        assert len(stream.reply.text) == 1000


def test_a_cancelled_stream_keeps_what_was_read(client: Client, router: Any) -> None:
    router.hold = True
    with client.stream("hi", model="m") as stream:
        assert next(stream) == "Hé"
        stream.cancel("keep")
        assert stream.reply.result.stop == "cancelled"


def test_leaving_a_stream_drops_it(client: Client, router: Any) -> None:
    router.hold = True
    with client.stream("hi", model="m") as stream:
        next(stream)
    router.until(wire.Cancel)
    with pytest.raises(Cancelled):
        _ = stream.reply


def test_ctrl_c_in_a_waiting_call_leaves_the_client_usable(client: Client, router: Any) -> None:
    router.hold = True
    timer = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.turn("hi", model="m")
    timer.join()
    router.until(wire.Cancel)
    router.hold = False
    assert client.turn("hi", model="m").text == "Héllo 🌍"


def test_threads_share_a_client(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda n: client.turn(f"turn {n}", model="m").text, range(40)))
    assert texts == ["Héllo 🌍"] * 40


def test_a_killed_broker_that_comes_back_gets_the_same_request_again(client: Client, router: Any) -> None:
    router.hold = True
    with client.stream("hi", model="m") as stream:
        assert next(stream) == "Hé"
        while stream.pieces[-1] != " 🌍":
            next(stream)
        router.end()
        router.turns.clear()
        router.hold = False
        router.begin()
        assert stream.reply.text == "Héllo 🌍"
    first, second = router.requests("turn")
    assert first.id == second.id
    assert (second.attempt, second.have) == (2, len("Héllo 🌍".encode()))


def test_without_a_broker_a_call_says_how_to_start_one(tmp_path: Path) -> None:
    with Client(f"ipc://{tmp_path}/none.sock", timeout_s=0.3) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="ssmprov up"):
            client.status()
        assert time.monotonic() - began < 2 * busy()


def test_a_mute_broker_is_unreachable_too(router: Any) -> None:
    router.mute = True
    with Client(router.endpoint, timeout_s=0.3) as client, pytest.raises(Unreachable):
        client.status()


def test_a_busy_broker_is_asked_again(client: Client, router: Any) -> None:
    router.busy = 3
    assert client.turn("hi", model="m").text == "Héllo 🌍"
    assert len({request.id for request in router.requests("turn")}) == 1


def test_impatience_raises_busy(router: Any) -> None:
    router.busy = 1000
    with Client(router.endpoint, patience_s=0.1) as client, pytest.raises(Busy):
        client.turn("hi", model="m")


def test_a_turn_that_nobody_answers_times_out(client: Client, router: Any) -> None:
    router.hold = True
    with pytest.raises(TimedOut):
        client.turn("hi", model="m", ttl_s=0.01)


def test_leaving_says_bye(router: Any) -> None:
    with Client(router.endpoint) as client:
        client.status()
    router.until(wire.Bye)


def test_a_closed_client_says_so(client: Client) -> None:
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.status()
    client.close()


def test_a_call_that_comes_behind_the_farewell_ends_too(client: Client) -> None:
    """The link is held while it is told to close and, after that, to ask something."""
    held, gate = threading.Event(), threading.Event()

    def hold(_now: float) -> list[Any]:
        held.set()
        gate.wait(60)
        return []

    client._thread.post(hold)
    assert held.wait(60)
    client._thread.post(client._thread._leave)  # what closing does first
    box = client.open(Call("status", ops.Status()))
    gate.set()
    ended = box.get(timeout=60)
    assert isinstance(ended, Result)
    assert isinstance(ended.error, Cancelled)


def test_closing_ends_what_others_wait_for(client: Client, router: Any) -> None:
    router.hold = True
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.turn, "hi", model="m")
        router.until(wire.Request)
        client.close()
        with pytest.raises(Cancelled):
            waiting.result(5)


# -- which model


def test_the_only_model_needs_no_name(client: Client, router: Any) -> None:
    client.turn("hi")
    assert router.requests("turn")[0].model == "m"


def test_the_only_model_with_the_context_is_found(client: Client, router: Any) -> None:
    router.models, router.contexts = ("m", "n"), {"n:here": "x"}
    client.turn("hi", context="here")
    assert router.requests("turn")[0].model == "n"
    with pytest.raises(NotFound, match="m or n"):
        client.show("nowhere")


def test_a_context_of_two_models_must_say_which(client: Client, router: Any) -> None:
    router.models, router.contexts = ("m", "n"), {"n:here": "x", "m:here": "y"}
    with pytest.raises(BadRequest, match="m:here or n:here"):
        client.show("here")
    assert client.show("n:here").row.model == "n"
    with pytest.raises(BadRequest, match="m or n"):
        client.turn("hi")
    with pytest.raises(BadRequest, match="one model"):
        client.turn("hi", context="m:here", save="n:here")


# -- what is refused before it is sent


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"prompt": "x" * (8 * 2**20 + 1)}, "8 MiB"),
        ({"prompt": "\ud800"}, "surrogate"),
        ({"prompt": "x", "save": "../x"}, "not a valid name"),
        ({"prompt": "x", "context": "y" * 300}, "."),
        ({"prompt": "x", "request_id": b"short"}, "16 bytes"),
        ({"prompt": "x", "ttl_s": 0}, "ttl_s must be"),
        ({"prompt": "x", "seed": -1}, "seed"),
    ],
)
def test_what_no_broker_would_take_is_refused_here(client: Client, router: Any, arguments: Any, why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        client.turn(**arguments, model="m")
    assert not router.requests("turn")


def test_one_id_is_open_only_once(client: Client, router: Any) -> None:
    router.hold = True
    with client.stream("hi", model="m", request_id=b"i" * 16) as stream:
        next(stream)
        with pytest.raises(BadRequest, match="new id"):
            client.turn("hi", model="m", request_id=b"i" * 16)
        stream.cancel("keep")
        assert stream.reply.result.stop == "cancelled"


# -- contexts and files


def test_a_long_text_is_read_in_parts_of_one_object(client: Client, router: Any) -> None:
    router.contexts = {"m:a": "naïve " * 20, f"m:#{'ab' * 32}": "naïve " * 20}
    assert client.text("a") == "naïve " * 20
    assert {request.context for request in router.requests("ckpt.show")} == {"a", "#" + "ab" * 32}


def test_a_fork_names_workers_in_short(client: Client, router: Any) -> None:
    router.contexts = {"m:a": ""}
    assert client.fork("a", ["b", "m:c"], on=["1", "m/0"]).pins == {"b": "m/1", "c": "m/0"}


def test_an_export_arrives_whole_and_then_appears(client: Client, router: Any, tmp_path: Path) -> None:
    router.contexts = {"m:a": ""}
    exported = client.export("a", tmp_path / "a.ssm")
    assert (tmp_path / "a.ssm").read_bytes() == router.file
    assert exported.bytes == len(router.file)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ssm"]


def test_an_export_cut_short_leaves_the_old_file(client: Client, router: Any, tmp_path: Path) -> None:
    router.contexts = {"m:a": ""}
    (tmp_path / "a.ssm").write_bytes(b"old")
    whole = router.file
    router._end = lambda turn, _stop: router._answer(turn.route, turn.request, ops.Exported("00" * 32, len(whole)))
    with pytest.raises(Corrupt):
        client.export("a", tmp_path / "a.ssm")
    assert (tmp_path / "a.ssm").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_import_is_sent_under_credit(client: Client, router: Any, tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "in.ssm").write_bytes(data)
    row = client.import_(tmp_path / "in.ssm", "new", model="m")
    assert (row.bytes, bytes(router.imported)) == (len(data), data)
    with pytest.raises(NotFound):
        client.import_(tmp_path / "none", "new", model="m")


def test_a_missing_context_is_not_found_with_the_brokers_words(client: Client) -> None:
    with pytest.raises(NotFound, match="no gone"):
        client.show("gone", model="m")


def test_any_operation_can_be_called(client: Client, router: Any) -> None:
    router.contexts = {"m:a": "text"}
    raw, text = client.call("ckpt.show", ops.Show(text=True), model="m", context="a")
    assert (wire.unpack(raw, ops.Shown).row.name, text) == ("a", b"text")


def test_the_endpoint_comes_from_the_environment_or_the_configuration(
    router: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSMPROV_BROKER", router.endpoint)
    with Client() as client:
        assert client.endpoint == router.endpoint
    monkeypatch.delenv("SSMPROV_BROKER")
    with Client(home=tmp_path) as client:
        assert client.endpoint == f"ipc://{tmp_path}/run/broker.sock"
    with pytest.raises(BadRequest, match="endpoint"):
        Client("nonsense")
