"""The clients with a real broker and workers: what is lost and what is not when they are killed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from cluster import Cluster, scripted_toml

from clients.calls import Call
from clients.exchange import Result, Want
from ssmprov import ops, wire
from ssmprov.errors import Cancelled, Conflict, NotFound, SsmprovError, WorkerLost

SLOW = {"replies": [{"after": "", "pieces": [f" {n}é" for n in range(120)]}], "token_delay_s": 0.01}
SLOW_TEXT = "".join(SLOW["replies"][0]["pieces"])  # type: ignore[index]


@pytest.fixture
def slow(make_cluster: Callable[[str], Cluster], tmp_path: Path) -> Cluster:
    return make_cluster(scripted_toml(tmp_path / "script", script=SLOW)).up()


def test_the_text_of_a_turn_is_the_text_of_its_context(talk: Cluster) -> None:
    client = talk.client()
    one = client.turn("Hi [ECHO]:", context="new", save="client/a", create=True)
    with client.stream("more", context="client/a", save="client/a") as stream:
        two = "".join(stream)
    assert client.text("client/a") == "Hi [ECHO]:" + one.text + "more" + two
    assert stream.progress[0] == stream.progress[1] > 0


def test_a_stream_tells_its_place_and_how_many_tokens_came(slow: Cluster) -> None:
    client = slow.client()
    places: list[int] = []
    with client.stream("a", model="talk", on_place=places.append) as stream:
        seen = [stream.tokens for _ in stream]
        assert stream.reply.result.reply_tokens == seen[-1] == stream.tokens == 120
    assert places == [0]
    assert seen == sorted(seen)


def test_a_compare_and_swap_of_two_has_one_winner(talk: Cluster) -> None:
    client = talk.client()
    head = client.turn("a", context="new", save="client/cas", create=True).result.object
    client.turn("b", context="client/cas", save="client/cas", if_head=head)
    with pytest.raises(Conflict):
        client.turn("c", context="client/cas", save="client/cas", if_head=head)


def test_one_id_has_one_effect(talk: Cluster) -> None:
    client = talk.client()
    arguments: Any = {"context": "new", "save": "client/once", "create": True, "request_id": wire.new_id()}
    first = client.turn("once", **arguments)
    again = client.turn("once", **arguments)
    assert (again.text, again.result.object) == (first.text, first.result.object)
    assert client.text("client/once") == "once" + first.text


def test_an_export_comes_back_as_an_import(talk: Cluster, tmp_path: Path) -> None:
    client = talk.client()
    client.turn("file", context="new", save="client/file", create=True)
    client.export("client/file", tmp_path / "x.ssm")
    client.rm(["client/file"])
    with pytest.raises(NotFound):
        client.show("client/file")
    client.import_(tmp_path / "x.ssm", "client/back")
    assert client.text("client/back").startswith("file")


def test_an_import_that_is_asked_for_again_has_one_effect_and_needs_no_file(talk: Cluster, tmp_path: Path) -> None:
    client, path = talk.client(), tmp_path / "x.ssm"
    client.turn("file", context="new", save="client/source", create=True)
    client.export("client/source", path)
    data = path.read_bytes()
    args = ops.Import("client/twice", len(data), hashlib.sha256(data).hexdigest())
    call = Call("ckpt.import", args, "talk")
    box = client.open(call)
    assert isinstance(box.get(), Want)
    client._supply(call.id, 0, data, True)
    first = box.get()
    assert isinstance(first, Result)
    again = talk.client().open(call).get()
    assert isinstance(again, Result)
    assert (again.error, again.result) == (None, first.result)


def test_a_stream_goes_on_over_a_killed_broker(slow: Cluster) -> None:
    client = slow.client()
    with client.stream("go", context="new", save="kept", create=True) as stream:
        next(stream)
        slow.processes["broker"].kill()
        slow.broker()
        assert "".join(stream.pieces) + "".join(stream) == SLOW_TEXT
    assert client.text("kept") == "go" + SLOW_TEXT


def test_a_turn_of_a_killed_worker_is_lost_and_its_context_stands(slow: Cluster) -> None:
    client = slow.client()
    client.turn("short", context="new", save="kept", create=True, max_tokens=2)
    before = client.text("kept")
    stream = client.stream("go", context="kept", save="kept")
    next(stream)
    slow.processes["talk/0"].kill()
    slow.worker("talk")
    with pytest.raises(WorkerLost):
        _ = stream.reply
    assert client.text("kept") == before


@pytest.mark.parametrize("mode", ["keep", "drop", "close"])
def test_a_cancelled_turn_leaves_what_its_mode_says(slow: Cluster, mode: str) -> None:
    client = slow.client()
    stream = client.stream("go", context="new", save="kept", create=True)
    next(stream)
    stream.cancel(mode)
    if mode == "drop":
        with pytest.raises(Cancelled):
            _ = stream.reply
        with pytest.raises(NotFound):
            client.show("kept")
    else:
        text = stream.reply.text
        assert client.text("kept") == "go" + text
        assert len(text) < len(SLOW_TEXT)
        assert text.endswith("~~~(end)~~~\n\n") == (mode == "close")


def test_any_messagepack_library_can_speak_the_protocol(talk: Cluster) -> None:
    """HELLO, a streamed turn, and its FINAL, spoken with msgpack and nothing of ours but the endpoint."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.rcvtimeo = 10_000
    try:
        socket.connect(talk.endpoint)
        args = msgpack.packb({"save": "client/plain", "create": True, "stream": True})
        request = {"id": b"p" * 16, "op": "turn", "model": "talk", "context": "new", "credit": 100}
        header = msgpack.packb(request | {"args": msgpack.unpackb(args)})
        socket.send_multipart([b"SSP1HELLO", msgpack.packb({"client": b"c" * 16, "versions": [1]})])
        socket.send_multipart([b"SSP1REQUEST", header, b"plain"])
        text = b""
        kinds = []
        while not kinds or kinds[-1] != b"SSP1FINAL":
            kind, packed, *payloads = socket.recv_multipart()
            kinds.append(kind)
            message = msgpack.unpackb(packed)
            if kind in (b"SSP1PARTIAL", b"SSP1FINAL"):
                assert message.get("offset", 0) == len(text)
                text += b"".join(payloads)
        assert kinds[0] == b"SSP1HELLO"
        assert b"SSP1ACCEPTED" in kinds
        assert message["result"]["stop"] == "end"
        assert text == b"hello!"
    finally:
        socket.close()
        context.term()


def test_every_error_of_the_tree_arrives_as_itself(talk: Cluster) -> None:
    with pytest.raises(SsmprovError) as caught:
        talk.client().turn("x", context="missing", model="talk")
    assert type(caught.value) is NotFound
