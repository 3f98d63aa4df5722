"""Frames that are wrong: their sender is told or dropped, the broker lives, and its memory stays bounded."""

from __future__ import annotations

import contextlib
import socket

import psutil
import pytest
from aftermath import Aftermath
from house import ENDLESS, House, Listener, Moment, until
from peers import Peers

from ssmprov import wire

MEMORY = 64 * 2**20
NESTED = b"\x91" * 60_000 + b"\xc0"
WRONG = {
    "20 frames of 900 kB": ([b"SSP1REQUEST", b"\x80", *[b"x" * 900_000] * 18], "18 payloads"),
    "8 frames of more than 1 MiB in all": ([b"SSP1REQUEST", b"\x80", *[b"x" * 900_000] * 8], "the header of REQUEST"),
    "deep nesting": ([b"SSP1REQUEST", NESTED], "the header of REQUEST is wrong"),
    "deep nesting in a map": ([b"SSP1REQUEST", b"\x81\xa4args" + NESTED], "the header of REQUEST is wrong"),
    "an unknown kind": ([b"SSP1DANCE", b"\x80"], "there is no message DANCE"),
    "another protocol": ([b"SSP2HELLO", b"\x80"], "does not begin with SSP1"),
    "nothing": ([b""], "this is not an ssmprov message"),
    "a header too large": ([b"SSP1HELLO", b"x" * (wire.MAX_HEADER + 1)], "the header has"),
    "cut short": ([b"SSP1HELLO", wire.encode(wire.Hello(b"c" * 16, agent="me"))[1][:-3]], "the header of HELLO"),
}


@pytest.fixture(scope="module")
def house(talking_house: House) -> House:
    return talking_house


@pytest.mark.parametrize("over", ["ipc", "tcp"])
def test_whoever_sends_what_is_wrong_is_told_and_nobody_else_notices(
    house: House, aftermath: Aftermath, peers: Peers, over: str
) -> None:
    endpoint = house.tcp if over == "tcp" else house.cluster.endpoint
    broker = psutil.Process(house.pid("broker"))
    with house.client() as client:
        beside = Listener(client.stream("[LONG]:", model="talk", **ENDLESS)).has(3)
        before = broker.memory_info().rss
        moment = Moment()
        for name, (frames, reason) in WRONG.items():
            peer = peers(endpoint)
            peer.socket.send_multipart(frames)
            told = peer.hears(wire.Bye)
            assert reason in told.reason, name
            assert told.error is not None
            assert told.error.code == "bad_request"
        assert broker.memory_info().rss - before < MEMORY
        # A frame beyond the wire's own bound ends the connection before anything is kept of it.
        peer = peers(endpoint)
        others = client.status().broker.clients
        peer.socket.send_multipart([b"SSP1REQUEST", b"x" * (wire.MAX_PAYLOAD + 1)])
        peer.socket.close()
        until(lambda: client.status().broker.clients < others, "it is dropped")
        beside.more()
        assert beside.longest_gap(moment.at) < 1.0
        beside.stream.cancel("drop")
        beside.end()


def test_who_does_not_speak_zeromq_disturbs_nobody(house: House, aftermath: Aftermath) -> None:
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 16 + b"\0" * 32
    with contextlib.ExitStack() as stack:
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, greeting, greeting + b"\x04\xff" * 200, greeting[:11]):
            stranger = stack.enter_context(socket.create_connection(("127.0.0.1", house.port), timeout=60))
            stranger.sendall(said)
        with house.client() as client:
            house.turn(client, "still", "here", max_tokens=0)
